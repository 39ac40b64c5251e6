"""A data set in windows: small objects of large pictures keep their pixels in training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from deixis.data.detect.transforms import crop
from deixis.data.pixels.images import load
from deixis.data.sets.embedded import records
from deixis.errors import OptionError
from deixis.records import Dataset, Sample, Vocabulary

AUTO = "auto"
MIN_SIDE_PX = 32
_ENLARGED = 1.25
"""With `auto`, a picture is sliced whose short side the model would shrink by more than this."""

Window = tuple[int, int, int, int]
"""(left, top, right, bottom), whole pixels."""


def require_slices(slice: int | str | None, overlap: float) -> None:
    """Raises OptionError for a slice that is neither "auto" nor a number of pixels, or an overlap outside [0, 0.9]."""
    number = isinstance(slice, int) and not isinstance(slice, bool) and slice >= MIN_SIDE_PX
    if slice not in (None, AUTO) and not number:
        raise OptionError(f"slice: expected 'auto' or at least {MIN_SIDE_PX} pixels, got {slice!r}")
    if not 0 <= overlap <= 0.9:
        raise OptionError(f"overlap: expected a number from 0 to 0.9, got {overlap}")


def windows_of(
    size_hw: tuple[int, int], slice: int | str | None, overlap: float, *, model_short_px: int
) -> list[Window]:
    """The windows of a picture: it as a whole, then squares that cover it; the whole alone where it is small.

    Args:
        slice: side of the squares in pixels, or "auto" for the size that the model sees without shrinking.
        overlap: of neighbours, as a share of the side.
        model_short_px: to which the model scales the short side of what it sees.

    >>> windows_of((100, 180), 100, 0.2, model_short_px=800)
    [(0, 0, 180, 100), (0, 0, 100, 100), (80, 0, 180, 100)]
    """
    height, width = size_hw
    whole = [(0, 0, width, height)]
    if slice is None or (slice == AUTO and min(size_hw) <= _ENLARGED * model_short_px):
        return whole
    side = model_short_px if slice == AUTO else int(slice)
    if max(size_hw) <= side:
        return whole
    return whole + [
        (left, top, min(left + side, width), min(top + side, height))
        for top in _starts(height, side, overlap)
        for left in _starts(width, side, overlap)
    ]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Where windows start along an axis: evenly, the first at 0, the last ending at the end."""
    if length <= side:
        return [0]
    step = max(1.0, side * (1 - overlap))  # at least this overlap; spread evenly it is mostly more
    count = int(np.ceil((length - side) / step)) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


@dataclass(frozen=True)
class Sliced:
    """The windows of every image, each an image of its own, cut out when it is asked for; ids count from 1.

    Boxes and masks end at a window's border. An object of which less than `min_visible` lies in a window is left out
    there, and its class is then not judged: nothing of that class is background in this window.

    Attributes:
        side: of the windows, in pixels; smaller images stay whole.
        overlap: of neighbours, as a share of the side.
        min_visible: share of an object, in (0, 1].
        whole: keep each image as a whole too, beside its windows.

    Raises:
        OptionError: a side, an overlap or a share that is none.
    """

    dataset: Dataset
    side: int
    overlap: float = 0.2
    min_visible: float = 0.5
    whole: bool = False

    def __post_init__(self) -> None:
        require_slices(self.side, self.overlap)
        if not 0 < self.min_visible <= 1:
            raise OptionError(f"min_visible must be above 0 and at most 1, got {self.min_visible}")

    @property
    def vocabulary(self) -> Vocabulary:
        """That of the data set."""
        return self.dataset.vocabulary

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{getattr(self.dataset, 'name', 'data')}, in windows of {self.side}"

    @cached_property
    def places(self) -> tuple[tuple[int, Window], ...]:
        """(position of the image, window) of each image that this set has."""
        found = []
        for index, sample in enumerate(records(self.dataset)):
            windows = windows_of(sample.size_hw, self.side, self.overlap, model_short_px=self.side)
            # the first window is the whole image; it stays where there is no other
            found += [(index, window) for window in (windows if self.whole or len(windows) == 1 else windows[1:])]
        return tuple(found)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int, /) -> Sample:
        """A window, decoded.

        Raises:
            DataError: its image cannot be read.
        """
        place, window = self.places[index]
        sample = crop(self._loaded(place), window, self.min_visible)
        left, top, *_ = window
        return sample.evolve(
            image_id=index + 1,
            source=f"{sample.source} at {left},{top}",
            original_size_hw=sample.size_hw,  # a window is an image by itself: boxes are reported in its pixels
            caption="",  # a sentence is about the whole image
            phrase_spans=(),
        )

    @cached_property
    def _loaded(self) -> Callable[[int], Sample]:
        """The image that was decoded last is kept: its windows follow one another."""
        return lru_cache(maxsize=1)(lambda place: load(self.dataset[place]))
