"""The options of `deixis detect eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.annotated_data import ClassTools
from deixis.options.checks import require, wanted_precision
from deixis.options.marks import AtLeast1, Range, Required, WithWordings
from deixis.options.used_models import MAX_SINKS, Engine, UsedDetector


@dataclass(frozen=True)
class DetectEvalOptions(UsedDetector, ClassTools, Engine):
    """Measure a detector: COCO mAP overall, by size and by class."""

    data: Annotated[str, Required("labels.json")] = ""
    """Annotations in any format (docs/formats.md), or "scenes:split=demo_val,count=100,seed=2"."""
    images: Path | None = None
    """Folder of the images, if the annotations do not name it."""
    format: str | None = None
    """Format of the annotations; recognised if not given."""
    names: Annotated[tuple[str, ...], WithWordings()] = ()
    """Several wordings of a class of the data, as in --names "car=car,automobile,sedan", merged into the class."""
    output: Path | None = None
    """Folder for metrics.json, coco_results.json and report.html; nothing is written if not given."""
    threshold_for: str = "f1"
    """What thresholds are chosen for: f1, or a precision, as in precision=0.9."""
    calibrate: bool = False
    """Fit a calibration of the scores, in place of the model's own."""
    try_sinks: Annotated[int, Range(0, MAX_SINKS)] = 0
    """Try this many attention sinks; the figures are those with the best kind if they help, else those without."""
    update_model: bool = False
    """Keep the thresholds, and what --calibrate and --try-sinks found, in the model's folder."""
    max_images: AtLeast1 | None = None
    """Measure only the first N images."""
    max_detections: AtLeast1 | None = None
    """Detections per image that count, the best ones; COCO's 100 (LVIS's 300) if not given. Images with more objects
    need more."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        require(not self.try_sinks or self.engine == "local", "try_sinks", self.try_sinks, "--engine local beside it")
        require(not self.try_sinks or self.sinks is None, "try_sinks", self.try_sinks, "none beside --sinks")
        wanted_precision(self.threshold_for)
