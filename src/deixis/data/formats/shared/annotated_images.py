"""Images with their objects, as a reader finds them in its files, to a data set: image files, sizes, names, masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import settle_located
from deixis.data.formats.find_images import Located, locate_beside, warn_loose
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.formats.shared.assemble import Picture, assemble, size_of
from deixis.errors import DataError
from deixis.records import SampleList
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


Row = TypeVar("Row")
Objects = Callable[[tuple[int, int]], list[AnnotatedObject]]  # of an image of (height, width) pixels
FoundImage = tuple[AnnotatedImage, Path, tuple[int, int]]  # with its file and its (height, width)


def samples_of(
    path: Path, rows: Sequence[AnnotatedImage], names: Sequence[str], *, images: Path | None, findings: Findings | None
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
        if image is not None:
            with collecting(findings, "image_unreadable", image, row.source, "image removed"):
                found.append((row, image, size_of(image, row.size_hw, findings, any_size=row.any_size)))
    return located_samples(path, found, names, findings=findings)


def located_samples(
    path: Path, found: Sequence[FoundImage], names: Sequence[str], *, findings: Findings | None
) -> SampleList:
    """`samples_of` for images whose files and sizes are known.

    Raises:
        DataError: no class, or an object that is none.
    """
    pictures = []
    for number, (row, image, size_hw) in enumerate(found, start=1):
        with collecting(findings, "record_malformed", path, row.source, "image removed"):
            objects = tuple(row.objects(size_hw))
            image_id = number if row.image_id is None else row.image_id
            pictures.append(Picture(image, size_hw, objects, row.source, row.model_version, image_id))
    listed = list(map(clean_name, names))
    more = {clean_name(one.label) for picture in pictures for one in picture.objects} - set(listed)
    return assemble(path, pictures, [*listed, *sorted(more)], path.stem, findings)


@contextmanager
def one_record(findings: Findings | None, path: Path, place: str, what: str = "object") -> Iterator[None]:
    """A block that reads one object or image, at a place of a file; with findings it is left out if it is none.

    Raises:
        DataError: without findings, for the `ValueError` of a shape too.
    """
    with collecting(findings, "record_malformed", path, place, f"{what} removed"):
        try:
            yield
        except ValueError as error:
            raise DataError(f"{path}: {place}: {error}; correct or remove it") from error


def each_object(
    findings: Findings | None,
    path: Path,
    place: str,
    *,
    rows: Sequence[Row],
    read: Callable[[Row, tuple[int, int]], list[AnnotatedObject]],
) -> Objects:
    """The objects of an image's rows, once its size is known; with findings without those rows that are none.

    Args:
        place: where the rows are, for messages; each one's number from 1 follows.
        read: the objects of one row; a `ValueError` says what is wrong with it.
    """

    def objects(size_hw: tuple[int, int]) -> list[AnnotatedObject]:
        found: list[AnnotatedObject] = []
        for number, row in enumerate(rows, start=1):
            with one_record(findings, path, f"{place} {number}"):
                found += read(row, size_hw)
        return found

    return objects


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
    # All images by their likeliest names before any by a second one: a guess must not take the file of another image.
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
        # folders of a server are on no disk: that they are gone from a name is no news
        warn_loose(str(path), [pair for pair in located.loose if not ("://" in pair[0] or pair[0].startswith("/"))])
    asked = [(row.file_names[0], row.source) for row in rows]
    settle_located(str(path), asked, Located(files, faults, []), searched, findings)
    return files
