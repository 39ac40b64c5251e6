"""The detector: Grounding DINO and MM-Grounding-DINO, written here, with transformers' parameter names."""

from deixis.models.grounding_dino.bundle import GroundingDinoBundle, init_bundle
from deixis.models.grounding_dino.detector import GroundingDino
from deixis.models.grounding_dino.weights.pretrained import load_grounding_dino, save_grounding_dino

__all__ = ["GroundingDino", "GroundingDinoBundle", "init_bundle", "load_grounding_dino", "save_grounding_dino"]
