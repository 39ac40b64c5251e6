"""From what a reader found in its files to samples: pictures located, sizes, names to class ids, boxes clipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import (
    clip_instances,
    settle_located,
    vocabulary_of,
    warn_dropped,
)
from deixis.data.formats.find_images import locate_among, warn_loose
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.pixels.images import image_sizes_hw
from deixis.errors import DataError
from deixis.records import Instances, Sample, SampleList
from deixis.text import clean_name


@dataclass(frozen=True)
class Picture:
    """One image and its objects; `source` is for messages, `model_version` the model that found the objects, and
    `image_id` None its number from 1."""

    image: Path
    size_hw: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]
    source: str
    model_version: str = ""
    image_id: int | None = None


def find_pictures(
    source: Path, names: Sequence[str], images: Path | None, folders: Sequence[Path], findings: Findings | None
) -> list[Path | None]:
    """The file of each name, in the folder that has most of them; None, with findings, where there is none.

    A name may be written in other ways: see `locate_all`.

    Raises:
        DataError: without findings, or where none is found: the missing ones are counted and the first is named.
    """
    located, searched = locate_among([images] if images is not None else list(folders), names)
    settle_located(str(source), [(name, source.name) for name in names], located, searched, findings)
    warn_loose(str(source), located.loose)
    return located.files


def sized_pictures(
    source: Path,
    names: Iterable[str],
    images: Path | None,
    folders: Sequence[Path],
    *,
    findings: Findings | None,
    stated_hw: Mapping[str, tuple[int, int] | None] = MappingProxyType({}),
) -> list[tuple[str, Path, tuple[int, int]]]:
    """(name, file, size) of the images that are there and can be read; see `find_pictures` and `size_of`."""
    names, found = list(names), []
    for name, image in zip(names, find_pictures(source, names, images, folders, findings), strict=True):
        if image is not None:
            with collecting(findings, "image_unreadable", image, source.name, "image removed"):
                found.append((name, image, size_of(image, stated_hw.get(name), findings)))
    return found


def size_of(
    image: Path,
    stated_hw: tuple[int, int] | None,
    findings: Findings | None,
    *,
    any_size: bool = False,
    stated_in: Path | None = None,
) -> tuple[int, int]:
    """The image's size: as stated in the annotations, which must be its own, upright or as stored, or its own.

    With findings the stated size is taken as it is, and the checks compare.

    Args:
        any_size: objects are shares of the image, so that another stated size does no harm.
        stated_in: the image's own annotation file, where it has one.

    Raises:
        DataError: the image cannot be read, or has another size.
    """
    if stated_hw is not None and findings is not None and not any_size:
        return stated_hw
    upright_hw, stored_hw = image_sizes_hw(image)
    if stated_hw is None or (any_size and stated_hw != stored_hw):
        return upright_hw
    if stated_hw not in (upright_hw, stored_hw):
        said, its = (f"{image}: annotated as", "") if stated_in is None else (f"{stated_in}: states", f"{image.name} ")
        raise DataError(
            f"{said} {stated_hw[1]}x{stated_hw[0]} pixels (width x height) but {its}has "
            f"{upright_hw[1]}x{upright_hw[0]}; correct the annotations, or restore the image that they were made on"
        )
    return stated_hw


def assemble(
    source: Path, pictures: Iterable[Picture], names: Sequence[str] | None, name: str, findings: Findings | None
) -> SampleList:
    """The data set of some pictures.

    Args:
        source: what was read, for messages.
        names: the class names in order; those of the objects, sorted, where the format has no list.
        name: of the data set, in reports.

    Raises:
        DataError: no picture, no name, or an object whose name is not in the list.
    """
    pictures = list(pictures)
    if not pictures:
        raise DataError(f"{source}: lists no image that can be used; there is nothing to train on or evaluate")
    if names is None:
        names = sorted({clean_name(thing.label) for picture in pictures for thing in picture.objects})
    if not names:
        raise DataError(
            f"{source}: none of its {len(pictures)} images has an object that can be used: nothing to learn from"
        )
    vocabulary = vocabulary_of(names, str(source))
    rows = {known: row for row, known in enumerate(vocabulary.names)}
    samples, dropped = [], []
    for number, picture in enumerate(pictures, start=1):
        objects = []
        for thing in picture.objects:
            with collecting(findings, "category_unknown", source, picture.source, "object removed"):
                # Raised here, so that with findings it becomes one and the object is left out.
                if clean_name(thing.label) not in rows:
                    raise DataError(f"{source}: {picture.source}: class {thing.label!r} is not in the list of classes")
                objects.append(thing)
        instances = _instances(objects, rows)
        instances, lost = clip_instances(instances, picture.size_hw, keep_all=findings is not None)
        dropped += [picture.source] * lost
        image_id = number if picture.image_id is None else picture.image_id
        sample = Sample(picture.image, picture.size_hw, instances, vocabulary, image_id, picture.source)
        samples.append(sample.evolve(model_version=picture.model_version) if picture.model_version else sample)
    warn_dropped(str(source), dropped)
    return SampleList(tuple(samples), vocabulary, name=name)


def _instances(objects: Sequence[AnnotatedObject], rows: dict[str, int]) -> Instances:
    """Masks are kept where all objects of an image have one, scores likewise."""
    masks = [thing.mask_rle for thing in objects if thing.mask_rle is not None]
    scores = [thing.score for thing in objects if thing.score is not None]
    boxes = [thing.box_xyxy_px for thing in objects]
    return Instances.build(
        boxes,
        [rows[clean_name(thing.label)] for thing in objects],
        [thing.is_crowd for thing in objects],
        areas_px=[
            max(x2 - x1, 0) * max(y2 - y1, 0) if thing.area_px is None else thing.area_px
            for thing, (x1, y1, x2, y2) in zip(objects, boxes, strict=True)
        ],
        masks_rle=masks if masks and len(masks) == len(objects) else None,
        scores=scores if scores and len(scores) == len(objects) else None,
    )
