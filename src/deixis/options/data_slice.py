"""The options of `deixis data slice`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.annotated_data import AnnotatedData, ClassTools, WrittenFormat
from deixis.options.checks import require
from deixis.options.marks import Range, Required
from deixis.options.used_models import MAX_SLICE_PX, MIN_SLICE_PX


@dataclass(frozen=True)
class DataSliceOptions(AnnotatedData, ClassTools):
    """Cut large images into windows for training, with what each window shows of the objects."""

    output: Annotated[Path | None, Required("slices/")] = None
    """Folder to write; it must not exist, or be empty."""
    slice: int = 640
    """Side of the windows, in pixels; smaller images stay whole. The same as of --slice in prediction."""
    overlap: Annotated[float, Range(0, 0.9)] = 0.2
    """How much neighbouring windows overlap, as a share of their side; larger than most objects."""
    min_visible: Annotated[float, Range(0, 1, open_low=True)] = 0.5
    """Share of an object that a window must show for it to be annotated there. Below, it is left out, and its class is
    not judged in that window: nothing there is taken for background."""
    whole: bool = True
    """Keep each image as a whole too, beside its windows, for objects larger than a window."""
    to: Annotated[str, WrittenFormat()] = "lvis"
    """Format to write. Only LVIS's keeps which classes are not judged; what others lose is printed."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        sizes = f"{MIN_SLICE_PX} to {MAX_SLICE_PX} pixels"
        require(MIN_SLICE_PX <= self.slice <= MAX_SLICE_PX, "slice", self.slice, sizes)
