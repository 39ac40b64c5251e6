"""The detector: Grounding DINO and MM-Grounding-DINO, written here, with transformers' parameter names."""

from deixis.models.grounding_dino.detector import GroundingDino

__all__ = ["GroundingDino"]
