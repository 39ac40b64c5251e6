"""Groups of options that commands share which use a model and do not train it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from deixis.errors import OptionError
from deixis.options.checks import A_DETECTOR, A_SEGMENTER, choose_model, require, require_model
from deixis.options.marks import RARE, AtLeast1, Range, Required
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

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, getattr(self, "data", ""))

    def check(self) -> None:
        """Raises OptionError for the first invalid value, or where no model is named."""
        super().check()
        _ = self.slice_px
        require_model(self.model, A_DETECTOR)


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

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, getattr(self, "data", "") or getattr(self, "masks", ""))

    def check(self) -> None:
        """Raises OptionError for the first invalid value, or where no model is named."""
        super().check()
        require_model(self.model, A_SEGMENTER)


@dataclass(frozen=True)
class Engine(Options):
    """Engine: this machine, or a Ray cluster"""

    engine: Literal["local", "ray"] = "local"
    """ray computes on a Ray cluster (pip install 'deixis[ray]'), with the same results; see docs/scale.md."""
    address: str | None = None
    """Of the Ray cluster, as in head:6379 or auto. Without it and without RAY_ADDRESS, Ray starts on this machine."""
    actors: AtLeast1 | None = None
    """With --engine ray: copies of the model that work side by side; as many as the GPUs, or half the CPU cores, allow
    if not given."""
    gpus_per_actor: Annotated[float | None, Range(0)] = None
    """With --engine ray: share of a GPU per copy, as in 0.5; 0 computes on CPUs. One GPU, if there are any, if not
    given."""
    shard_rows: Annotated[int, Range(1), RARE] = 256
    """With --engine ray: pictures per shard, which is one parquet file in rows/, and what is done again after a
    failure; rounded up to whole batches."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        if self.engine == "local":
            for name in ("address", "actors", "gpus_per_actor"):
                require(getattr(self, name) is None, name, getattr(self, name), "--engine ray beside it")
        else:
            device = getattr(self, "device", None)
            require(device is None, "device", device, "--gpus-per-actor in its place with --engine ray")
            for name in ("track", "stream"):
                value = getattr(self, name, None)
                require(not value, name, value, "--engine local for videos")
        share = self.gpus_per_actor
        require(share is None or share <= 1 or share == int(share), "gpus_per_actor", share, "a share, or whole GPUs")


def require_images_or_stream(images: tuple[Path, ...], stream: str, max_frames: int | None) -> None:
    """Raises OptionError unless images are given, or in their place the address of a stream."""
    if not stream:
        Required("photos/").require("images", images)
    elif images:
        raise OptionError("--stream stands in place of --images; leave out one of them")
    if max_frames and not stream:
        raise OptionError("--max-frames is for --stream; leave it out, or give an address")
