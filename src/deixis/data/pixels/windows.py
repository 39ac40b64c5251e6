"""Windows that cover a large picture."""

from __future__ import annotations

import numpy as np

from deixis.errors import OptionError

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
