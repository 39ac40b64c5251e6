"""Whether boxes are written as their format defines them: corners for sizes, or shares of the image for pixels."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from jaxtyping import Float

from deixis.errors import DataError

Frame = Literal["xywh", "corners", "share xywh", "share corners"]
_ROUNDING_PX = 1.0
_ROUNDING_SHARE = 1e-3
_MIN_SIDE_PX = 32  # in smaller images, boxes of one pixel are plausible


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
    if (
        limits.min() >= _MIN_SIDE_PX
        and boxes.min() >= -_ROUNDING_SHARE
        and boxes.max() <= 1 + _ROUNDING_SHARE
        and (boxes % 1).any()
    ):
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
    """Warn how boxes were read that are not written as their format defines them."""
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
