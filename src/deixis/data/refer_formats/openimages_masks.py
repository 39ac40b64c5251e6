"""Open Images' segmentations (Benenson et al., arXiv 1903.10830): one CSV row, PNG and class name per object."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from deixis.data.formats.annotation_files import ImageIndex, the_file
from deixis.data.formats.openimages.read import class_descriptions, header
from deixis.data.formats.record import Format
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reading, reads, require_regular
from deixis.data.refer_formats.entries import settle, warn_left_out
from deixis.data.refer_formats.templates import DEFAULT_TEMPLATES, Objects, phrases
from deixis.errors import DataError
from deixis.geometry.rle import bitmap_rle
from deixis.records import Rle
from deixis.refer_records import Expression, ReferSample

_COLUMNS = ("MaskPath", "ImageID", "LabelName")


@dataclass(frozen=True)
class _Picture:
    path: Path
    masks: tuple[tuple[str, Path], ...]  # class name, PNG file


@dataclass(frozen=True)
class OpenImagesMasks:
    """Images with the masks of named objects; PNGs are read when a sample is asked for."""

    pictures: tuple[_Picture, ...]
    templates: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> ReferSample:
        """One image, one expression per class.

        Raises:
            DataError: the image or a mask cannot be read.
        """
        picture = self.pictures[index]
        size_hw = image_sizes_hw(picture.path)[0]
        by_class: dict[str, list[Rle]] = {}
        for name, file in picture.masks:
            with reading(file, "a mask"):
                by_class.setdefault(name, []).append(png_mask(file, size_hw))
        expressions = tuple(
            Expression(phrases(name, self.templates), tuple(masks), expression_id=number)
            for number, (name, masks) in enumerate(sorted(by_class.items()), start=1)
        )
        return ReferSample(picture.path, size_hw, expressions, index + 1, f"{self.name}: image {picture.path.stem}")


def find_openimages_masks(path: Path) -> list[Path]:
    """The CSV files of a folder, or of its `annotations`, that list masks; or a CSV file itself."""
    if not path.is_dir():
        return [path] if path.suffix == ".csv" else []
    files = [file for place in (path, path / "annotations") for file in sorted(place.glob("*.csv"))]
    return [file for file in files if set(header(file)) >= set(_COLUMNS)]


@reads("Open Images masks")
def read_openimages_masks(
    path: str | Path,
    images: Path | None = None,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    objects: Objects = "all",
    faults: list[str] | None = None,
) -> OpenImagesMasks:
    """A segmentation CSV, or the folder that holds one, with `…class-descriptions….csv` beside it.

    PNG masks are looked for in `masks`, in folders with `masks` in their name, and beside the CSV; images in `images`
    and the folders that box annotations are read with. Images of which the picture or a mask is not there are left
    out, with a warning that counts them: most people hold a part of Open Images. A mask of another size than its image
    is resized to it (nearest pixel). Open Images does not outline every object it shows, so "the man" may mean more
    men than are masked; `single` keeps to the classes with one mask.

    Raises:
        DataError: a missing column, labels without a name, or no image that has its masks.
    """
    file = the_file(path, find_openimages_masks, "CSV file of masks")
    index = ImageIndex(_image_folders(file) if images is None else [images])
    rows, there, bad = _rows(file, index, class_descriptions(file))
    settle(str(file), bad, faults)
    folders = _mask_folders(file)
    pictures, maskless = [], []
    for image_id, named in rows.items():
        masks = tuple((name, mask) for name, png in named if (mask := _find(png, folders)) is not None)
        if len(masks) < len(named):
            maskless.append(image_id)
            continue
        # Of which classes the image has one mask only.
        single = [name for name, _ in masks]
        kept = tuple(pair for pair in masks if objects == "all" or single.count(pair[0]) == 1)
        picture = there[image_id]
        if kept and picture is not None:
            pictures.append(_Picture(picture, kept))
    unseen = [image_id for image_id, picture in there.items() if picture is None]
    if not pictures:
        raise DataError(
            f"{file}: no image has its picture and its masks ({len(unseen)} pictures and the masks of {len(maskless)} "
            f"images are missing); looked for masks in {', '.join(map(str, folders))}; give pictures with --images"
        )
    warn_left_out(str(file), "images, which are not there", sorted(unseen))
    warn_left_out(str(file), "images whose mask files are not all there", maskless)
    return OpenImagesMasks(tuple(pictures), tuple(templates), file.stem)


def png_mask(file: Path, size_hw: tuple[int, int]) -> Rle:
    """A PNG's pixels above 0 as a mask of an image's size.

    Raises:
        DataError: it is no image.
    """
    try:
        with Image.open(file) as image:
            grey = image.convert("L").resize(size_hw[::-1], Image.Resampling.NEAREST)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{file}: cannot read the mask ({error}); get it again, or remove its row") from error
    return bitmap_rle(np.asarray(grey) > 0)


def _rows(
    file: Path, index: ImageIndex, names: dict[str, str] | None
) -> tuple[dict[str, list[tuple[str, str]]], dict[str, Path | None], list[str]]:
    """(class name, PNG name) by image that is there; the file of every image; and rows that cannot be used."""
    rows: dict[str, list[tuple[str, str]]] = {}
    pictures: dict[str, Path | None] = {}
    bad = []
    require_regular(file)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines)
            columns = next(reader, [])
            absent = [name for name in _COLUMNS if name not in columns]
            if absent:
                raise DataError(f"{file}: has no column {', '.join(absent)}; its first row is {columns}")
            png, image, label = (columns.index(name) for name in _COLUMNS)
            for row in reader:  # as it comes: the training file has 2.7 million rows
                if len(row) != len(columns):
                    bad.append(f"line {reader.line_num}: has {len(row)} values, not {len(columns)}")
                    continue
                try:
                    if row[image] not in pictures:
                        pictures[row[image]] = index.find("", row[image])
                except DataError as error:  # it may be any of several
                    bad.append(f"line {reader.line_num}: {error}")
                    continue
                if pictures[row[image]] is None:
                    continue
                if names is not None and row[label] not in names:
                    bad.append(f"line {reader.line_num}: label {row[label]!r} is not among the class descriptions")
                elif names is None and row[label].startswith("/m/"):  # Freebase's id of a class, no word
                    bad.append(f"line {reader.line_num}: label {row[label]!r} needs class-descriptions.csv beside it")
                else:
                    name = row[label] if names is None else names[row[label]]
                    rows.setdefault(row[image], []).append((name.strip(), row[png]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot read the CSV ({error}); get it again") from error
    return rows, pictures, bad


def _find(png: str, folders: Sequence[Path]) -> Path | None:
    return next((folder / png for folder in folders if (folder / png).is_file()), None)


def _mask_folders(file: Path) -> list[Path]:
    home = file.parent
    nested = [place for root in (home, home.parent) for place in sorted(root.glob("*masks*")) if place.is_dir()]
    return [*dict.fromkeys(nested), home]


def _image_folders(file: Path) -> list[Path]:
    """Folders of pictures; never those of masks, whose names begin as the pictures' do."""
    split = file.name.split("-")[0]  # train-annotations-object-segmentation.csv: train/
    places = [file.parent / "images", file.parent, file.parent.parent / "images", file.parent.parent]
    return [folder for place in places for folder in (place, place / split) if folder.is_dir()]


OPENIMAGES_MASKS = Format(
    "openimages_masks",
    find_openimages_masks,
    read_openimages_masks,
    takes=("templates", "objects", "faults"),
    decisive=True,
)
