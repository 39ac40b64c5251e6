"""What all writers share: image files into the new folder, and samples made ready for formats with one vocabulary."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image

from deixis.data.formats.zipped import is_unpacked
from deixis.data.pixels.image_files import IMAGE_SUFFIXES
from deixis.data.pixels.images import decode_image, image_sizes_hw, load
from deixis.data.sets.embedded import picture_bytes, records
from deixis.errors import DataError
from deixis.records import Dataset, Sample, Vocabulary
from deixis.text import clean_name

ImageMode = Literal["copy", "link"]
# Control characters, line and paragraph separators, marks that reverse text on a screen, halves of characters.
_NO_NAME = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SUFFIX_OF = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif", "WEBP": ".webp"}


@dataclass(frozen=True)
class Picture:
    """A sample's image as a file: where it is or what it holds, and the name it would like."""

    content: Path | bytes
    name: str


class FileNames:
    """Names for files of one folder, no two alike but for their suffix or case, so each can have a text file."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """The name, or the name with a number where it is taken; `_` for what is no text, or no part of a name."""
        path = PurePosixPath(_NO_NAME.sub("_", name.replace("\\", "/")))
        chosen, number = path.stem, 1
        while chosen.casefold() in self._taken:
            number += 1
            chosen = f"{path.stem}_{number}"
        self._taken.add(chosen.casefold())
        return chosen + path.suffix


def placed(
    dataset: Dataset, folder: Path, mode: ImageMode, own_vocabularies: bool = False
) -> Iterator[tuple[Sample, str]]:
    """Each sample, and the name of its image file once that is in the folder.

    Files are copied as they are, or linked to where they are. Pictures that are no files become files: embedded
    ones as they are, pixels as PNG, and those that were annotated in another orientation than viewers show as PNG in
    the orientation of the annotation.

    Args:
        own_vocabularies: leave samples with vocabularies of their own as they are; otherwise see `conformed`.

    Raises:
        DataError: an image that cannot be read, is not as large as annotated, or an image id that occurs twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, seen = FileNames(), set()
    for sample, picture in _pictures(dataset):
        if sample.image_id in seen:
            raise DataError(f"{sample.source}: image id {sample.image_id} occurs more than once; ids must differ")
        seen.add(sample.image_id)
        name = names.take(picture.name)
        place_file(picture.content, folder / name, mode)
        yield (sample if own_vocabularies else conformed(sample, dataset.vocabulary)), name


def file_contents(dataset: Dataset) -> Iterator[tuple[Sample, str, bytes]]:
    """Each sample, its image's name and its image file's content; see `placed`."""
    names = FileNames()
    for sample, name, content in image_contents(dataset):
        yield sample, names.take(name), content


def image_contents(dataset: Dataset) -> Iterator[tuple[Sample, str, bytes]]:
    """The same with the names that images would like, several of which may be alike."""
    for sample, picture in _pictures(dataset):
        content = picture.content if isinstance(picture.content, bytes) else picture.content.read_bytes()
        yield conformed(sample, dataset.vocabulary), picture.name, content


def place_file(content: Path | bytes, target: Path, mode: ImageMode) -> None:
    """Write, copy or link an image; one of an archive, which is unpacked for a while only, is copied."""
    if isinstance(content, bytes):
        target.write_bytes(content)
    elif mode == "link" and not is_unpacked(content):
        target.symlink_to(content.resolve())
    else:
        shutil.copyfile(content, target)


def conformed(sample: Sample, vocabulary: Vocabulary) -> Sample:
    """The sample in the vocabulary of its data set; of names that are not its own nothing is known."""
    own = sample.vocabulary.names
    if own == vocabulary.names:
        return sample.evolve(vocabulary=vocabulary)  # whose category ids may be others
    rows = {name: row for row, name in enumerate(vocabulary.names)}
    unknown = [name for name in own if name not in rows]
    if unknown:
        raise DataError(f"{sample.source}: names {unknown} are not in the vocabulary of the data set")
    ids = np.array([rows[name] for name in own], np.int64)
    return sample.evolve(
        instances=replace(sample.instances, class_ids=ids[sample.instances.class_ids]),
        vocabulary=vocabulary,
        absent_class_ids=frozenset(ids[sorted(sample.known_absent_class_ids)].tolist()),
        not_exhaustive_class_ids=frozenset(ids[sorted(sample.not_exhaustive_class_ids)].tolist()),
    )


def check_names(vocabulary: Vocabulary) -> None:
    """Raises DataError for names that lines of text cannot hold."""
    for name in vocabulary.names:
        if name != clean_name(name):
            raise DataError(f"class name {name!r} has blanks at its ends or characters that are no text; rename it")


def _pictures(dataset: Dataset) -> Iterator[tuple[Sample, Picture]]:
    for index, sample in enumerate(records(dataset)):
        data = picture_bytes(dataset, index)
        yield sample, _picture(sample, data)


def _picture(sample: Sample, data: bytes | None) -> Picture:
    if isinstance(sample.image, np.ndarray):
        return Picture(_png(sample.image), f"{sample.image_id:06d}.png")
    name = sample.image.name
    # Viewers turn such a picture by its EXIF flag, and its objects would lie elsewhere.
    if image_sizes_hw(sample.image, data)[0] != sample.size_hw:  # annotated in the orientation that is stored
        pixels = load(sample).image if data is None else decode_image(data, sample.source)
        assert isinstance(pixels, np.ndarray)
        if pixels.shape[:2] != sample.size_hw:
            raise DataError(f"{sample.source}: image is {pixels.shape[:2]} (height, width), annotated {sample.size_hw}")
        return Picture(_png(pixels), f"{Path(name).stem}.png")
    if data is None:
        return Picture(sample.image, name)
    # Readers know pictures by their suffix, which the names inside archives and tables may lack.
    if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        with Image.open(BytesIO(data)) as image:
            name += _SUFFIX_OF.get(image.format or "", ".png")
    return Picture(data, name)


def _png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
