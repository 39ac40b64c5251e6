"""The options of `deixis refer predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.marks import NotBlank, Required, Share
from deixis.options.used_models import UsedSegmenter


@dataclass(frozen=True)
class ReferPredictOptions(UsedSegmenter):
    """Find what phrases mean in images; write drawn images, mask PNGs and JSON."""

    images: Annotated[tuple[Path, ...], Required("photos/")] = ()
    """Images, or folders of them."""
    phrases: Annotated[tuple[str, ...], Required('"the red car"'), NotBlank()] = ()
    """What to look for, as in --phrases "the dog on the left" "the red car"."""
    output: Path = Path("segmentations")
    """Folder for pictures/, masks/ and segmentations.json."""
    generate: bool = True
    """Let the model write its answer; with --no-generate it is given the standard one."""
    threshold: Share | None = None
    """Minimum probability that the object is there; below it the mask is left empty. By default the model's own, fitted
    on validation data, or 0.5 (deixis's behaviour only)."""
