"""Groups of options that commands share which use a model and do not train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from deixis.errors import OptionError
from deixis.options.marks import AtLeast1, Range
from deixis.options.types import Options

MIN_SLICE_PX, MAX_SLICE_PX = 32, 100_000

MAX_SINKS = 64


@dataclass(frozen=True)
class UsedDetector(Options):
    """Model: which detector, on which device"""

    model: str = ""
    """"builtin", a folder (a run's teachers/ or checkpoints/best), a hub id, or a file of `deixis model export`."""
    batch_size: AtLeast1 = 4
    """Images per batch."""
    prompt_names: AtLeast1 | None = None
    """Maximum number of names per prompt; as many as fit if not given."""
    slice: str | None = None
    """See large images also in windows of this many pixels, which finds small objects; auto takes windows that the
    model does not shrink. Whole images only if not given."""
    overlap: Annotated[float, Range(0, 0.9)] = 0.2
    """With --slice: how much neighbouring windows overlap, as a share of their side."""
    nms: Annotated[float | None, Range(0, 1, open_low=True)] = None
    """Non-maximum suppression: of boxes of one class with this IoU or more, keep the best. All are kept if not given,
    but for those of several wordings of a class (IoU 0.7)."""
    nms_across_classes: bool = False
    """Boxes of different classes suppress each other too, from --nms or an IoU of 0.7 on."""
    sinks: Annotated[int | None, Range(0, MAX_SINKS)] = None
    """Attention sinks behind each prompt, against detections of what is not there (docs/figures.md): this many, 0 for
    none; those of the model's folder if not given."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""

    @property
    def boxes(self) -> dict[str, Any]:
        """How boxes are found and chosen, as `Detector` takes it."""
        return {
            "slice": self.slice_px,
            "overlap": self.overlap,
            "nms": self.nms,
            "across_classes": self.nms_across_classes,
            "sinks": self.sinks,
        }

    @property
    def slice_px(self) -> int | str | None:
        """--slice as a number of pixels, "auto" or None.

        Raises:
            OptionError: it is neither.
        """
        if self.slice is None or self.slice == "auto":
            return self.slice
        if not self.slice.isdecimal() or not MIN_SLICE_PX <= int(self.slice) <= MAX_SLICE_PX:
            raise OptionError(f"--slice: expected auto or 32 to 100000 pixels, got {self.slice!r}")
        return int(self.slice)

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        _ = self.slice_px


@dataclass(frozen=True)
class UsedSegmenter(Options):
    """Model: which segmenter, on which device"""

    model: str = ""
    """"builtin", a folder (a run's teachers/ or checkpoints/best, or the released layout), or a hub id."""
    batch_size: AtLeast1 = 8
    """Phrases, masks or conversations per batch."""
    max_tiles: AtLeast1 = 12
    """Maximum number of tiles in which the vision-language model sees an image."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""
