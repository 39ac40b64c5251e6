"""The options of `deixis refer eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.checks import require
from deixis.options.marks import AtLeast1, Required, Share
from deixis.options.used_models import UsedSegmenter


@dataclass(frozen=True)
class ReferEvalOptions(UsedSegmenter):
    """Measure a segmenter: cIoU and gIoU, overall and by phrase length, object size and number of objects."""

    data: Annotated[tuple[str, ...], Required("labels.json")] = ()
    """Data in any format (docs/formats.md), or "scenes:split=refer_unseen,count=100,seed=3"."""
    images: Path | None = None
    """Folder of the images, if the data does not name it."""
    format: str | None = None
    """Format of the data; recognised if not given."""
    output: Path | None = None
    """Folder for metrics.json and segmentations.json; nothing is written if not given."""
    max_images: AtLeast1 | None = None
    """Measure only the first N images."""
    generate: bool = False
    """Let the model write its answer, which may lack [SEG]; by default it is given the standard answer."""
    threshold: Share | None = None
    """Minimum probability that the object is there; below it the mask is left empty. By default the model's own, fitted
    on validation data, or 0.5 (deixis's behaviour only)."""
    fit_threshold: bool = False
    """Fit this threshold on the data and store it in the model's folder: use validation data, not test data."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        if self.fit_threshold:
            require(self.threshold is None, "threshold", self.threshold, "none beside --fit-threshold")
            require(not self.generate, "generate", self.generate, "the standard answer with --fit-threshold")
            require(Path(self.model).is_dir(), "model", self.model, "a folder: --fit-threshold stores its result there")
