"""Image files to pixels: always uint8 RGB, upright, whatever the file holds.

Orientation (EXIF) is honoured, grey is repeated to three channels, alpha is laid over white, 16-bit grey is
scaled by its full range (65535 becomes 255), CMYK and palettes are converted.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deixis.data.pixels.image_files import HEAD, kind_of_content, kind_of_file
from deixis.data.pixels.instances import scale_instances
from deixis.data.reading import require_regular
from deixis.errors import DataError, UnreadableImageError
from deixis.records import Sample
from deixis.text import one_line

_ORIENTATION_TAG = 0x0112
_TIFF_WIDTH_TAG, _TIFF_HEIGHT_TAG = 0x0100, 0x0101
_JPEG_END = b"\xff\xd9"
_JPEG_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_SWAPS_AXES = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class _Stored:
    """Pixels as the file stores them, before EXIF's rotation; `full_hw` is the size without JPEG draft scaling."""

    pixels: UInt8[np.ndarray, "h w 3"]
    orientation: int
    full_hw: tuple[int, int]


def load_image(path: Path | str, min_short_px: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image file as upright uint8 RGB.

    Args:
        path: any format Pillow reads.
        min_short_px: when given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (several times faster) as
            long as its short side keeps at least this many pixels.

    Raises:
        DataError: the file is missing, truncated or not an image.
    """
    stored = _read(Path(path), min_short_px)
    return _upright(stored.pixels, stored.orientation)


def decode_image(data: bytes, name: str, min_short_px: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Upright uint8 RGB from the bytes of an image file; `name` is for the message, `min_short_px` as in `load_image`.

    Raises:
        DataError: the bytes are truncated or no image.
    """
    stored = _read(Path(name), min_short_px, data)
    return _upright(stored.pixels, stored.orientation)


def image_sizes_hw(path: Path | str, data: bytes | None = None) -> tuple[tuple[int, int], tuple[int, int]]:
    """(upright size, stored size) of an image file as (height, width), from its header alone.

    Args:
        path: the file.
        data: its content, where it is inside another file; `path` is then only its name in messages.

    Raises:
        DataError: the file is missing or its header is not an image's.
    """
    path = Path(path)
    if data is None:
        require_regular(path)
    try:
        with Image.open(path if data is None else BytesIO(data)) as image:
            stored_hw = (image.height, image.width)
            orientation = _orientation(image)
            if image.format == "TIFF":  # Pillow decodes these upright only
                tags = image.tag_v2  # type: ignore[attr-defined]
                height, width = int(tags[_TIFF_HEIGHT_TAG]), int(tags[_TIFF_WIDTH_TAG])
                stored_hw = (width, height) if orientation in _SWAPS_AXES else (height, width)
                orientation = 1
    except Exception as error:  # decoders raise all kinds on damaged files
        raise _unreadable(path, error, data) from error
    return (stored_hw[::-1] if orientation in _SWAPS_AXES else stored_hw), stored_hw


def wide_grey_range(path: Path | str, data: bytes | None = None) -> tuple[float, float] | None:
    """The range of values, but for the outermost hundredths, of a grey image of 16 bits; None of all others.

    Args:
        path: the file.
        data: its content, where it is inside another file.
    """
    try:
        if data is None:
            require_regular(Path(path))
        with Image.open(path if data is None else BytesIO(data)) as image:
            if not image.mode.startswith("I"):
                return None
            values = np.asarray(image)
    except Exception:  # damaged files are reported elsewhere
        return None
    if not values.size or values.min() < 0 or not 255 < values.max() <= 65535:
        return None
    low, high = np.percentile(values, [1, 99]).tolist()
    return float(low), float(high)


def orientation_of(path: Path | str, data: bytes) -> int:
    """EXIF's orientation, 1 to 8, of an image file's content; 1 where it has none.

    Raises:
        DataError: the header is not an image's.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            return 1 if image.format == "TIFF" else _orientation(image)
    except Exception as error:  # decoders raise all kinds on damaged files
        raise _unreadable(Path(path), error, data) from error


def load(sample: Sample, min_short_px: int | None = None) -> Sample:
    """The sample with its image decoded, checked against the annotated size.

    Boxes are taken to be in the upright (EXIF-rotated) frame, as annotation tools draw them. Where only the size
    as stored, unrotated, agrees with the annotated one, the annotation was made on the unrotated picture and the
    stored orientation is kept. With `min_short_px` (see `load_image`) boxes shrink with the picture, while
    `original_size_hw` stays.

    Raises:
        DataError: the file cannot be read, or its size is not the annotated one.
    """
    if isinstance(sample.image, np.ndarray):
        return sample
    stored = _read(sample.image, min_short_px)
    upright_hw = stored.full_hw[::-1] if stored.orientation in _SWAPS_AXES else stored.full_hw
    if upright_hw == sample.size_hw:
        pixels = _upright(stored.pixels, stored.orientation)
    elif stored.full_hw == sample.size_hw:
        pixels = stored.pixels
    else:
        where = f"{sample.source}: " if sample.source else ""
        raise DataError(
            f"{where}{sample.image} is {size_text(upright_hw)} pixels (width x height) but annotated as "
            f"{size_text(sample.size_hw)}; correct the annotation or restore the image it was made on"
        )
    actual_hw = (pixels.shape[0], pixels.shape[1])
    instances = scale_instances(sample.instances, sample.size_hw, actual_hw)
    return sample.evolve(image=pixels, size_hw=actual_hw, instances=instances)


def _read(path: Path, min_short_px: int | None, data: bytes | None = None) -> _Stored:
    if data is None:
        require_regular(path)
    try:
        with Image.open(path if data is None else BytesIO(data)) as image:
            if image.format == "EPS":  # a program, which Pillow would have Ghostscript run
                raise ValueError("PostScript is not read, convert it to PNG")
            full_hw = (image.height, image.width)
            orientation = _orientation(image)
            share = _jpeg_share(full_hw, min_short_px)
            pixels = None
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                pixels = _decode_jpeg(path.read_bytes() if data is None else data, share)
            if pixels is None:
                # JPEGs of other modes, decoded smaller; others ignore it
                image.draft("RGB", (image.width // share, image.height // share))
                image.load()
                if image.format == "TIFF":  # Pillow turns TIFFs upright by itself
                    full_hw, orientation = (image.height, image.width), 1
                pixels = _to_rgb(image)
    except Exception as error:  # decoders raise all kinds on damaged files
        raise _unreadable(path, error, data) from error
    if pixels.size == 0:
        raise UnreadableImageError(f"{path}: the image has no pixels; replace or remove the file")
    return _Stored(pixels, orientation, full_hw)


def _jpeg_share(full_hw: tuple[int, int], min_short_px: int | None) -> int:
    """1, 2, 4 or 8: the smallest share of its size at which a JPEG's short side still has `min_short_px`."""
    if min_short_px is None:
        return 1
    return next((share for share in (8, 4, 2) if min(full_hw) // share >= max(min_short_px, 1)), 1)


def _decode_jpeg(data: bytes, share: int) -> UInt8[np.ndarray, "h w 3"] | None:
    """A JPEG as stored, by OpenCV: the same decoder as Pillow's, without its two more copies of the picture.

    None where Pillow has to see it: files that do not end as a JPEG does, whose missing part OpenCV would paint grey,
    and those that it cannot decode, since Pillow states the reason.
    """
    if not data.endswith(_JPEG_END):
        return None
    flags = _JPEG_FLAGS[share] | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if decoded is None else np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, decoded), np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF does not make the pixels unusable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey = _wide_grey_to_u8(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=2)
    # alpha over white: what is clear has arbitrary colours
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, coloured)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def _wide_grey_to_u8(grey: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """16-bit values by their full range, floats of [0, 1] by 255, anything wider by the range it uses."""
    values = grey.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels are not finite numbers")
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if grey.dtype.kind == "f" and low >= 0 and high <= 1:
        scaled = values * 255
    elif grey.dtype.kind == "f" and low >= 0 and high <= 255:
        scaled = values
    elif low >= 0 and high <= 65535:
        scaled = values / 257  # 65535 / 257 is 255
    else:
        scaled = (values - low) * (255 / (high - low))
    return np.round(scaled).astype(np.uint8)


def _upright(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Undo EXIF orientation 1 to 8 (Exif 2.32, tag 0x0112)."""
    if orientation in _SWAPS_AXES:
        pixels = pixels.swapaxes(0, 1)  # [h, w, 3] to [w, h, 3]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _unreadable(path: Path, error: Exception, data: bytes | None = None) -> UnreadableImageError:
    if isinstance(error, FileNotFoundError):
        return UnreadableImageError(f"{path}: image file not found; check the images folder and the file name")
    if isinstance(error, IsADirectoryError | PermissionError):
        return UnreadableImageError(f"{path}: cannot open image: {error.strerror}; check the path and its permissions")
    if isinstance(error, Image.DecompressionBombError):
        return UnreadableImageError(f"{path}: image is too large to decode safely; cut it into tiles")
    kind = kind_of_file(path) if data is None else kind_of_content(data[:HEAD])
    if kind is not None:
        return UnreadableImageError(f"{path}: is {kind}")
    reason = one_line(error).removesuffix(f" {str(path)!r}").split(" <_io")[0]
    return UnreadableImageError(
        f"{path}: cannot decode image ({reason}); the file is damaged or no image: replace or remove it"
    )


def size_text(size_hw: tuple[int, int]) -> str:
    """A size as people write it: width x height."""
    return f"{size_hw[1]}x{size_hw[0]}"
