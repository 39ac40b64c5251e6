"""What an image file itself shows, and whether its annotation was made on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from deixis.data.findings import Findings, image_loss
from deixis.data.pixels.image_hash import DECODE_SHORT_PX, ImageHash, hash_image
from deixis.data.pixels.images import decode_image, image_sizes_hw, orientation_of, size_text, wide_grey_range
from deixis.data.pixels.instances import scale_instances
from deixis.data.reading import require_regular
from deixis.data.sets.embedded import picture_bytes, record_of
from deixis.errors import DataError
from deixis.records import Dataset, Instances, Sample

_SAME_SHAPE = 0.02  # two aspect ratios this close, as a share, are one: sizes are rounded to pixels
_ROUNDING_PX = 1.0
MIN_GREY_LEVELS = 32.0  # of 255, between the hundredths of a picture's values


@dataclass(frozen=True)
class DecodedImage:
    """An image decoded once, its pixels forgotten.

    Attributes:
        sample: its record; without pixels where it has a file.
        hashed: None where the file cannot be decoded; `fault` is then the reason.
        upright_hw, stored_hw: its size as it is shown, and before EXIF's rotation.
        orientation: EXIF's, 1 to 8.
        wide_grey: the range of values of a 16-bit grey image; see `wide_grey_range`.
    """

    sample: Sample
    hashed: ImageHash | None
    upright_hw: tuple[int, int] = (0, 0)
    stored_hw: tuple[int, int] = (0, 0)
    orientation: int = 1
    fault: str = ""
    wide_grey: tuple[float, float] | None = None


def decode_once(dataset: Dataset, index: int) -> DecodedImage:
    """Decode an image of a data set, at an eighth of its size where its format can."""
    sample = record_of(dataset, index)
    if isinstance(sample.image, np.ndarray):
        return DecodedImage(sample, hash_image(sample.image, None), sample.size_hw, sample.size_hw)
    try:
        content = picture_bytes(dataset, index)
        embedded = content is not None
        content = _read(sample.image) if content is None else content
        hashed = hash_image(decode_image(content, str(sample.image), DECODE_SHORT_PX), content)
        upright_hw, stored_hw = image_sizes_hw(sample.image, content)
        orientation = orientation_of(sample.image, content)
        wide_grey = wide_grey_range(sample.image, content)
    except DataError as error:
        return DecodedImage(sample, None, fault=str(error).removeprefix(f"{sample.image}: ").split(";")[0])
    if embedded:  # these are always decoded upright
        return DecodedImage(sample, hashed, upright_hw, upright_hw, orientation, wide_grey=wide_grey)
    return DecodedImage(sample, hashed, upright_hw, stored_hw, orientation, wide_grey=wide_grey)


def in_own_frame(decoded: DecodedImage, findings: Findings) -> Sample | None:
    """The sample in its image's own frame; None where it is unknown, or there is no image."""
    sample = decoded.sample
    file, place, loss = file_of(sample), sample.source, image_loss(len(sample.instances))
    if decoded.hashed is None:
        findings.add("image_unreadable", file, place, decoded.fault, loss)
        return None
    if sample.size_hw == decoded.upright_hw:
        if decoded.orientation != 1:
            findings.add("exif_rotated", file, place, f"has EXIF orientation {decoded.orientation}")
        return sample
    if sample.size_hw == decoded.stored_hw:
        shown, stored = size_text(decoded.upright_hw), size_text(decoded.stored_hw)
        text = f"is shown as {shown} by EXIF but annotated as stored, {stored}"
        findings.add("exif_conflict", file, place, text, "image rewritten as it was annotated")
        return sample
    text = f"is {size_text(decoded.upright_hw)} pixels (width x height) but annotated as {size_text(sample.size_hw)}"
    kept, fix = _reframed(sample, decoded.upright_hw)
    findings.add("size_mismatch", file, place, text, fix if kept is not None else f"{fix}: {loss}")
    return kept


def examine_range(sample: Sample, wide_grey: tuple[float, float] | None, findings: Findings) -> None:
    """A finding on a 16-bit image that becomes nearly uniform in 8 bits."""
    if wide_grey is None:
        return
    low, high = wide_grey
    levels = (high - low) / 257  # 65535 becomes 255
    if levels < MIN_GREY_LEVELS:
        text = f"uses {low:.0f} to {high:.0f} of 0 to 65535, which become {levels:.1f} of 255 grey levels"
        findings.add("image_dim", file_of(sample), sample.source, text)


def _reframed(sample: Sample, actual_hw: tuple[int, int]) -> tuple[Sample | None, str]:
    """The sample in the frame of its image as it is, and what was done.

    An image of the annotated shape was resized after it was annotated; boxes that leave the annotated frame and fit
    the image indicate a wrong size in the file.
    """
    boxes = sample.instances.boxes_xyxy_px
    as_annotated, as_is = _fitting(boxes, sample.size_hw), _fitting(boxes, actual_hw)
    either = as_annotated | as_is  # a box outside of both frames decides nothing
    ratio_y, ratio_x = actual_hw[0] / sample.size_hw[0], actual_hw[1] / sample.size_hw[1]
    if abs(ratio_y / ratio_x - 1) <= _SAME_SHAPE and as_annotated[either].all():
        scaled = scale_instances(sample.instances, sample.size_hw, actual_hw)
        return _resized(sample, actual_hw, scaled), "objects scaled to the image's size"
    if as_is[either].all():
        unmasked = replace(sample.instances, masks_rle=None)
        gone = ", masks removed" if sample.instances.masks_rle else ""
        return _resized(sample, actual_hw, unmasked), f"size corrected, boxes kept as they fit the image{gone}"
    return None, "boxes fit neither size"


def _resized(sample: Sample, size_hw: tuple[int, int], instances: Instances) -> Sample:
    return sample.evolve(size_hw=size_hw, original_size_hw=size_hw, instances=instances)


def _fitting(boxes_xyxy_px: np.ndarray, size_hw: tuple[int, int]) -> Bool[np.ndarray, " n"]:
    """Which boxes lie inside an image of that size."""
    height, width = size_hw
    most = np.array([width, height, width, height]) + _ROUNDING_PX
    inside: np.ndarray = np.all((boxes_xyxy_px <= most) & (boxes_xyxy_px >= -_ROUNDING_PX), axis=1)
    return inside


def file_of(sample: Sample) -> str:
    """The image's file, or its name inside another file."""
    return str(sample.image) if isinstance(sample.image, Path) else sample.source or f"image {sample.image_id}"


def _read(path: Path) -> bytes:
    require_regular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read ({error.strerror})") from error
