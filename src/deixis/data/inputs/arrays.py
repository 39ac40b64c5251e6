"""Arrays and PIL images to uint8 RGB."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deixis.errors import DataError

_CHANNELS = (1, 3, 4)


def rgb_of_pil(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """A PIL image as it is, transparency over white.

    Raises:
        DataError: its mode has no defined range of brightness.
    """
    if image.mode[0] in "IF":
        raise DataError(f"a PIL image of mode {image.mode} has no defined range of brightness; convert it to RGB first")
    try:
        opaque = image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")
    except OSError as error:  # opened, and decoded only now
        raise DataError(f"a PIL image cannot be decoded ({error}); open another file") from error
    if opaque.mode == "RGBA":
        opaque = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return np.asarray(opaque)


def rgb_of_array(array: np.ndarray, name: str = "image") -> UInt8[np.ndarray, "h w 3"]:
    """An array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) as RGB; grey is repeated, alpha is laid over white.

    uint8 is used as it is; bool and floats of [0, 1] are scaled by 255, uint16 by its full range; floats and other
    integers may also be of [0, 255].

    Raises:
        DataError: another shape, type or range.

    >>> rgb_of_array(np.array([[0.0, 1.0]])).tolist()
    [[[0, 0, 0], [255, 255, 255]]]
    """
    planes = array[..., None] if array.ndim == 2 else array
    if planes.ndim != 3 or 0 in planes.shape or planes.shape[2] not in _CHANNELS:
        hint = ""
        if planes.ndim == 3 and planes.shape[0] in _CHANNELS and 0 not in planes.shape:
            hint = "; channels come last: write image.transpose(1, 2, 0)"
        raise DataError(f"{name}: an array must have shape (h, w), (h, w, 3) or (h, w, 4), got {array.shape}{hint}")
    values = _as_uint8(planes, name)
    if values.shape[2] == 1:
        return np.repeat(values, 3, axis=2)
    if values.shape[2] == 4:
        return rgb_of_pil(Image.fromarray(values, "RGBA"))
    return values


def _as_uint8(planes: np.ndarray, name: str) -> UInt8[np.ndarray, "h w c"]:
    kind = planes.dtype.kind
    if planes.dtype == np.uint8:
        return planes
    if kind == "b":
        return planes.astype(np.uint8) * np.uint8(255)
    if planes.dtype == np.uint16:
        return np.round(planes / 257).astype(np.uint8)  # 65535 / 257 is 255
    if kind not in "fiu":
        raise DataError(f"{name}: an array must hold numbers, got {planes.dtype}")
    low, high = planes.min(), planes.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{name}: an array must hold finite numbers, got values from {low} to {high}")
    if low < 0 or high > 255:
        raise DataError(
            f"{name}: values of {planes.dtype} must lie in [0, 1] or [0, 255], got {low:.4g} to {high:.4g}; undo the "
            "normalisation, or convert to uint8"
        )
    scale = 255 if kind == "f" and high <= 1 else 1
    rounded: np.ndarray = np.round(planes.astype(np.float64) * scale).astype(np.uint8)
    return rounded
