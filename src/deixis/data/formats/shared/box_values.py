"""How boxes are written: corners, sizes or centres, in pixels or as shares; found from the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

BoxKind = Literal["corners", "xywh", "centre", "text", "unknown"]
_ROUNDING_PX, _ROUNDING_SHARE = 1.0, 1e-3
_MIN_SIDE_PX = 32  # in smaller images, boxes of one pixel are plausible
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
    limits = sizes_hw[:, ::-1]
    shares = bool(
        limits.min() >= _MIN_SIDE_PX
        and boxes.min() >= -_ROUNDING_SHARE
        and boxes.max() <= 1 + _ROUNDING_SHARE
        and (boxes % 1).any()
    )
    limits = np.ones_like(limits) if shares else limits
    fits = {kind: _fit(boxes, kind, limits, _ROUNDING_SHARE if shares else _ROUNDING_PX) for kind in _MEANT}
    usual: BoxKind = {"unknown": "corners", "text": "xywh"}.get(named, named)  # type: ignore[assignment]
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


def corners_px(boxes: _Boxes, sizes_hw: Float[np.ndarray, "n 2"], how: Convention) -> _Boxes:
    """Boxes as corners in pixels."""
    if how.shares:
        boxes = boxes * sizes_hw[:, [1, 0, 1, 0]]
    return _as_corners(boxes, how.kind)


def _as_corners(boxes: _Boxes, kind: BoxKind) -> _Boxes:
    if kind == "corners":
        return boxes
    first = boxes[:, :2] - (boxes[:, 2:] / 2 if kind == "centre" else 0)
    return np.concatenate([first, first + boxes[:, 2:]], axis=1)


def _fit(boxes: _Boxes, kind: BoxKind, limits_wh: np.ndarray, rounding: float) -> Bool[np.ndarray, " n"]:
    corners = _as_corners(boxes, kind)
    inside = (corners[:, :2] >= -rounding).all(1) & (corners[:, 2:] <= limits_wh + rounding).all(1)
    return np.asarray(inside & (corners[:, 2:] > corners[:, :2]).all(1))
