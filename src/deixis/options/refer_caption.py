"""The options of `deixis refer caption`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.marks import AtLeast0, AtLeast1, NotNegative, Range, Required
from deixis.options.used_models import Engine, UsedSegmenter


@dataclass(frozen=True)
class Masks(UsedSegmenter, Engine):
    """Masks to describe, and with which segmenter"""

    masks: Annotated[str, Required("labels.json")] = ""
    """Masks in any format (docs/formats.md): plain JSON, COCO, SA-1B, Open Images; or "scenes:split=refer_seen,…"."""
    images: Path | None = None
    """Folder of the images, if the file of the masks does not name it."""
    format: str | None = None
    """Format of the masks; recognised if not given."""
    max_images: AtLeast1 | None = None
    """Describe only the first N images; for SA-1B this also bounds start-up time."""
    max_new_tokens: AtLeast1 = 40
    """Maximum number of tokens per caption."""
    seed: AtLeast0 = 0
    """Random seed of sampled captions."""


@dataclass(frozen=True)
class ReferCaptionOptions(Masks):
    """Describe masks: write a caption and its score for each, and draw them."""

    output: Path = Path("captions")
    """Folder for captions.json, which `refer train --data` reads, and pictures/."""
    measure: bool = False
    """Compare with the data's own phrases: CIDEr-D, METEOR (if Java and pycocoevalcap are installed) and exact matches,
    by region size; writes metrics.json."""
    temperature: NotNegative = 0.0
    """0 takes the most likely token each time; above, tokens are sampled, the more evenly the higher it is."""
    top_p: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    """Sample only among the most likely tokens that together have this probability."""
    pictures: bool = True
    """Draw the captions on the images."""
