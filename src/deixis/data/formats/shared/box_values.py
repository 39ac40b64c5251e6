"""How boxes are written: corners, sizes or centres, in pixels or as shares; found from the values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from deixis.errors import DataError

Frame = Literal["xywh", "corners", "share xywh", "share corners"]
BoxKind = Literal["corners", "xywh", "centre", "text", "unknown"]
# Corners may stand out by this much, as exporters round them.
_ROUNDING_PX, _ROUNDING_SHARE = 1.0, 1e-3
MIN_SIDE_PX = 32  # in smaller images, boxes of one pixel are plausible
_MEANT: dict[BoxKind, str] = {
    "corners": "corners [x1, y1, x2, y2]",
    "xywh": "[x, y, width, height]",
    "centre": "centre and size [cx, cy, width, height]",
}
_Boxes = Float[np.ndarray, "n 4"]


@dataclass(frozen=True)
class Convention:
    """How boxes are written, and a note for the user where that was found from the values."""

    kind: BoxKind
    shares: bool
    note: str


def convention(boxes: _Boxes, sizes_hw: Float[np.ndarray, "n 2"], named: BoxKind) -> Convention:
    """How four numbers per box are meant.

    A meaning fits where it leaves all boxes inside their images, with some area. What the columns' names say holds
    unless most boxes do not fit it and all fit another. Without names they are corners, in a text sizes, as RetinaNet
    and COCO write them, unless that does not fit and another meaning does.

    Args:
        boxes: as written.
        sizes_hw: of their images.
        named: what the names of the columns say.
    """
    if not len(boxes):
        return Convention(named if named in _MEANT else "xywh", False, "")
    limits = sizes_hw[:, ::-1]  # (width, height), as boxes are (x, y)
    shares = are_shares(boxes, limits)
    limits = np.ones_like(limits) if shares else limits
    fits = {kind: _fit(boxes, kind, limits, _ROUNDING_SHARE if shares else _ROUNDING_PX) for kind in _MEANT}
    if named == "corners":  # then their order means nothing; unnamed, it tells corners from sizes
        fits["corners"] = _fit(in_order(boxes), "corners", limits, _ROUNDING_SHARE if shares else _ROUNDING_PX)
    usual: BoxKind = {"unknown": "corners", "text": "xywh"}.get(named, named)  # type: ignore[assignment]
    # unnamed, a single box that does not fit is doubt enough; named columns are believed until half do not fit
    doubtful = not fits[usual].all() if named in ("unknown", "text") else fits[usual].mean() < 0.5
    kind = next((other for other in _MEANT if doubtful and fits[other].all()), usual)
    unit = "shares of the image, " if shares else ""
    if kind == named and not shares:
        return Convention(kind, shares, "")
    note = f"boxes read as {unit}{_MEANT[kind]}"
    rivals = [_MEANT[other] for other in _MEANT if other != kind and fits[other].all()]
    if kind != usual:
        note += f", for as {_MEANT[usual]} {int((~fits[usual]).sum())} of {len(boxes)} do not fit their images"
    elif rivals and named in ("unknown", "text"):
        note += f", though all would fit as {' or '.join(rivals)} too; name the columns to say which"
    return Convention(kind, shares, note)


def by_convention(
    boxes: Sequence[Sequence[Sequence[float]]], sizes_hw: Sequence[tuple[int, int]], named: BoxKind
) -> tuple[list[_Boxes], str]:
    """The boxes of each image as corners in pixels, and the note of `convention`, which is found from all of them."""
    flat, sizes, ends = _flat(boxes, sizes_hw)
    how = convention(flat, sizes, named)
    if how.shares:
        flat = flat * sizes[:, [1, 0, 1, 0]]  # (height, width) as (width, height, width, height)
    corners = in_order(flat) if how.kind == "corners" else _as_corners(flat, how.kind)
    # Without any image `np.split` still gives one part.
    return np.split(corners, ends)[: len(boxes)], how.note


def by_frame(
    boxes: Sequence[Sequence[Sequence[float]]],
    sizes_hw: Sequence[tuple[int, int]],
    where: str,
    frame: Frame | None = None,
) -> list[_Boxes]:
    """The boxes of each image as corners in pixels; without a `frame` that of `frame_of`, with a warning.

    Raises:
        DataError: shares that fit as sizes and as corners.
    """
    flat, sizes, ends = _flat(boxes, sizes_hw)
    if frame is None:
        frame = frame_of(flat, sizes, where)
        warn_frame(frame, where)
    if frame.startswith("share"):
        flat = flat * sizes[:, [1, 0, 1, 0]]  # (height, width) as (width, height, width, height)
    return np.split(_as_corners(flat, "corners" if frame.endswith("corners") else "xywh"), ends)[: len(boxes)]


def _flat(
    boxes: Sequence[Sequence[Sequence[float]]], sizes_hw: Sequence[tuple[int, int]]
) -> tuple[_Boxes, Float[np.ndarray, "n 2"], list[int]]:
    """All boxes, the size of each one's image, and where the boxes of each image but the last end."""
    counts = [len(of_image) for of_image in boxes]
    flat = np.array([box for of_image in boxes for box in of_image], np.float64).reshape(-1, 4)
    sizes = np.repeat(np.array(sizes_hw, np.float64).reshape(-1, 2), counts, axis=0)  # [images, 2] to [n, 2]
    return flat, sizes, np.cumsum(counts)[:-1].tolist()


def in_order(corners: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """Boxes by any two opposite corners as [left, top, right, bottom]: some tools keep the order of the strokes."""
    first, second = corners[..., :2], corners[..., 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)


def frame_of(boxes: Float[np.ndarray, "n 4"], sizes_hw: Float[np.ndarray, "n 2"], where: str) -> Frame:
    """How boxes that should be [x, y, width, height] in pixels are written.

    They are corners [x1, y1, x2, y2] where all fit as those and some leave their image as sizes. They are shares of
    the image where none is larger than 1 and some are not whole numbers.

    Raises:
        DataError: shares that fit as sizes and as corners.
    """
    if not len(boxes):
        return "xywh"
    limits = sizes_hw[:, ::-1]
    if are_shares(boxes, limits):
        ones = np.ones_like(limits)
        as_sizes, as_corners = _fit_as_sizes(boxes, ones, _ROUNDING_SHARE), _fit_as_corners(boxes, ones)
        if as_sizes.all() != as_corners.all():
            return "share xywh" if as_sizes.all() else "share corners"
        raise DataError(
            f"{where}: its {len(boxes)} boxes are shares of the image from 0 to 1, not pixels, and may be sizes or "
            "corners; multiply them by the image's width and height, as [x, y, width, height] in pixels"
        )
    if _fit_as_corners(boxes, limits + _ROUNDING_PX).all() and not _fit_as_sizes(boxes, limits, _ROUNDING_PX).all():
        return "corners"
    return "xywh"


def warn_frame(frame: Frame, where: str) -> None:
    """Warn how boxes were read that are not written as their format defines them; silent for those that are."""
    if frame == "xywh":
        return
    meant = "corners [x1, y1, x2, y2]" if frame.endswith("corners") else "[x, y, width, height]"
    if frame == "corners":
        reason = "as [x, y, width, height] they leave their images"
    else:
        meant, reason = f"shares of the image, {meant}", "none is larger than 1"
    warnings.warn(f"{where}: boxes read as {meant}: {reason}", stacklevel=4)


def _fit_as_sizes(boxes: np.ndarray, limits_wh: np.ndarray, rounding: float) -> np.ndarray:
    fits: np.ndarray = (boxes[:, :2] + boxes[:, 2:] <= limits_wh + rounding).all(1)
    return fits


def _fit_as_corners(boxes: np.ndarray, limits_wh: np.ndarray) -> np.ndarray:
    fits: np.ndarray = np.all((boxes[:, 2:] <= limits_wh) & (boxes[:, 2:] > boxes[:, :2]), axis=1)
    return fits


def are_shares(boxes: _Boxes, limits_wh: np.ndarray) -> bool:
    """Whether boxes are shares of their images: none is larger than 1, and some are not whole numbers."""
    lowest, highest = boxes.min(), boxes.max()
    # whole numbers alone, as 0 and 1, are as well corners of boxes of a pixel, which small images have
    in_range = lowest >= -_ROUNDING_SHARE and highest <= 1 + _ROUNDING_SHARE
    return bool(in_range and limits_wh.min() >= MIN_SIDE_PX and (boxes % 1).any())


def _as_corners(boxes: _Boxes, kind: BoxKind) -> _Boxes:
    if kind == "corners":
        return boxes
    first = boxes[:, :2] - (boxes[:, 2:] / 2 if kind == "centre" else 0)
    return np.concatenate([first, first + boxes[:, 2:]], axis=1)


def _fit(boxes: _Boxes, kind: BoxKind, limits_wh: np.ndarray, rounding: float) -> Bool[np.ndarray, " n"]:
    corners = _as_corners(boxes, kind)
    inside = (corners[:, :2] >= -rounding).all(1) & (corners[:, 2:] <= limits_wh + rounding).all(1)
    return np.asarray(inside & (corners[:, 2:] > corners[:, :2]).all(1))
