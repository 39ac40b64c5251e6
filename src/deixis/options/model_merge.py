"""The options of `deixis model merge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.marks import Required, Share
from deixis.options.types import Options


@dataclass(frozen=True)
class ModelMergeOptions(Options):
    """Merge an adapter into its base model, or average a fine-tuned model with its base."""

    model: Annotated[str, Required("runs/mine/teachers/grounding_dino")] = ""
    """The fine-tuned model: an adapter folder, which is merged into its base, or a whole model."""
    base: str = ""
    """What fine-tuning started from; required with --weight for a whole model, an adapter names its own."""
    weight: Share = 1.0
    """Weight of the fine-tuned model, from 0 (the base) to 1; below 1, some of what was forgotten comes back."""
    output: Path = Path("merged")
    """Folder to write, in transformers' layout; it must not exist."""
    dry_run: bool = False
    """Read and check everything, write nothing."""
