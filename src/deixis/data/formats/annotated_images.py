"""Images with their objects, as a reader finds them in its files, to a data set: image files, sizes, names, masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotated_objects import AnnotatedObject
from deixis.data.formats.annotation_files import (
    clip_instances,
    report_missing,
    require_no_missing,
    vocabulary_of,
    warn_dropped,
)
from deixis.data.formats.find_images import locate_beside, warn_loose
from deixis.data.pixels.images import image_sizes_hw
from deixis.errors import DataError
from deixis.records import Instances, Sample, SampleList, Vocabulary
from deixis.text import clean_name


@dataclass(frozen=True)
class AnnotatedImage:
    """What annotations say of one image.

    Attributes:
        file_names: what its file may be called, likeliest first; folders may stand before.
        objects: its objects, once the image's (height, width) in pixels is known.
        source: where it is annotated, for messages.
        size_hw: as stated; None where it is not.
        any_size: the objects fit the image in any size, as they are shares of it.
        image_id: its own id; by default images are numbered from 1.
        model_version: the model that found the objects; empty where people annotated them.
    """

    file_names: tuple[str, ...]
    objects: Callable[[tuple[int, int]], Sequence[AnnotatedObject]]
    source: str
    size_hw: tuple[int, int] | None = None
    any_size: bool = False
    image_id: int | None = None
    model_version: str = ""


FoundImage = tuple[AnnotatedImage, Path, tuple[int, int]]  # with its file and its (height, width)


def samples_of(
    path: Path,
    rows: Sequence[AnnotatedImage],
    names: Sequence[str],
    *,
    images: Path | None,
    findings: Findings | None,
) -> SampleList:
    """The data set of some annotated images. Masks are kept for the images whose objects all have one.

    Args:
        path: the annotation file; images are looked for around it.
        names: of all classes, in order; names of objects that are not among them follow, sorted.
        images: the folder of images, where the user gives it.
        findings: what cannot be used goes here and is left out; see `deixis.data.findings.Findings`.

    Raises:
        DataError: no image, no class, a missing image or one of another size, or an object that is none.
    """
    if not rows:
        raise DataError(f"{path}: lists no image; there is nothing to read")
    found: list[FoundImage] = []
    for row, image in zip(rows, image_files(path, rows, images, findings=findings), strict=True):
        size_hw = (0, 0)
        if image is not None:
            with collecting(findings, "image_unreadable", image, row.source, "image removed"):
                size_hw = _size(row, image, strict=findings is None)
            if size_hw != (0, 0):
                found.append((row, image, size_hw))
    return located_samples(path, found, names, findings=findings)


def located_samples(
    path: Path, found: Sequence[FoundImage], names: Sequence[str], *, findings: Findings | None
) -> SampleList:
    """`samples_of` for images whose files and sizes are known.

    Raises:
        DataError: no class, or an object that is none.
    """
    whole = []
    for number, (row, image, size_hw) in enumerate(found, start=1):
        objects = None
        with collecting(findings, "record_malformed", path, row.source, "image removed"):
            objects = row.objects(size_hw)
        if objects is not None:
            whole.append((row, image, size_hw, objects, row.image_id or number))
    vocabulary = named(path, names, (one.label for *_, objects, _ in whole for one in objects))
    samples, dropped = [], []
    for row, image, size_hw, objects, image_id in whole:
        instances, lost = clip_instances(instances_of(objects, vocabulary), size_hw, keep_all=findings is not None)
        dropped += [row.source] * lost
        sample = Sample(image, size_hw, instances, vocabulary, image_id, row.source)
        samples.append(sample.evolve(model_version=row.model_version))
    warn_dropped(str(path), dropped)
    return SampleList(tuple(samples), vocabulary, name=path.stem)


@contextmanager
def one_object(findings: Findings | None, path: Path, place: str) -> Iterator[None]:
    """A block that reads one object, at a place of a file; with findings the object is left out if it is none.

    Raises:
        DataError: without findings, for the `ValueError` of a shape too.
    """
    with collecting(findings, "record_malformed", path, place, "object removed"):
        try:
            yield
        except ValueError as error:
            raise DataError(f"{path}: {place}: {error}; correct or remove it") from error


def named(path: Path, names: Sequence[str], labels: Iterable[str]) -> Vocabulary:
    """The vocabulary of listed names and of those that only objects have.

    Raises:
        DataError: there is no name, or a listed one twice.
    """
    listed = list(map(clean_name, names))
    more = sorted(set(map(clean_name, labels)) - set(listed))
    if not listed and not more:
        raise DataError(f"{path}: has no object and no class name; there is nothing to learn from")
    return vocabulary_of([*listed, *more], str(path))


def instances_of(objects: Sequence[AnnotatedObject], vocabulary: Vocabulary) -> Instances:
    """The objects of one image as arrays."""
    rows = {name: row for row, name in enumerate(vocabulary.names)}
    masks = [one.mask_rle for one in objects if one.mask_rle is not None]
    scores = [one.score for one in objects if one.score is not None]
    return Instances.build(
        [one.box_xyxy_px for one in objects],
        [rows[clean_name(one.label)] for one in objects],
        [one.is_crowd for one in objects],
        areas_px=[one.area_px for one in objects],
        masks_rle=masks if masks and len(masks) == len(objects) else None,
        scores=scores if scores and len(scores) == len(objects) else None,
    )


def image_files(
    path: Path, rows: Sequence[AnnotatedImage], images: Path | None, *, findings: Findings | None
) -> list[Path | None]:
    """The file of each image; with findings, None where there is none.

    Raises:
        DataError: without findings, the first that is missing or that may be several files; with them, if all are.
    """
    files: list[Path | None] = [None] * len(rows)
    faults: dict[int, str] = {}
    searched: list[Path] = []
    for rank in range(max(len(row.file_names) for row in rows)):
        left = [i for i, row in enumerate(rows) if files[i] is None and i not in faults and rank < len(row.file_names)]
        if not left:
            continue
        located, folders = locate_beside(path, [rows[i].file_names[rank] for i in left], images)
        searched = searched or folders
        taken = {file for file in files if file is not None}
        for position, i in enumerate(left):
            file = located.files[position]
            if position in located.faults:
                faults[i] = located.faults[position]
            elif file in taken:
                faults[i] = f"{rows[i].file_names[rank]!r} is found as {file}, the file of another image"
            else:
                files[i] = file
        warn_loose(str(path), [pair for pair in located.loose if not _is_on_a_server(pair[0])])
    missing = [(row.file_names[0], row.source) for i, row in enumerate(rows) if files[i] is None and i not in faults]
    if findings is not None and any(files):
        for i, fault in faults.items():
            findings.add("image_misplaced", rows[i].file_names[0], rows[i].source, fault, "image removed")
        report_missing(findings, missing)
        return files
    if faults:
        raise DataError(
            f"{path}: {len(faults)} of {len(rows)} images are not where their names point: "
            f"{next(iter(faults.values()))}; give the folder that the names begin in with --images"
        )
    require_no_missing(str(path), [name for name, _ in missing], len(rows), searched)
    return files


def _is_on_a_server(name: str) -> bool:
    """Whether the folders of a name are a server's, which no disk has: that they are gone is no news."""
    return "://" in name or name.startswith("/")


def _size(row: AnnotatedImage, image: Path, strict: bool) -> tuple[int, int]:
    if row.size_hw is not None and not strict and not row.any_size:
        return row.size_hw
    upright_hw, stored_hw = image_sizes_hw(image)
    if row.size_hw in (upright_hw, stored_hw):
        return row.size_hw
    if row.size_hw is None or row.any_size:
        return upright_hw
    raise DataError(
        f"{row.source}: states {row.size_hw[1]}x{row.size_hw[0]} pixels (width x height) but {image.name} has "
        f"{upright_hw[1]}x{upright_hw[0]}; correct the file or restore the image it was made on"
    )
