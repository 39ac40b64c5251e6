"""COCO's panoptic JSON (Kirillov et al., arXiv 1801.00868) with PNGs whose colours are the ids of segments.

Things are read as objects, stuff is counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import holds_text, parse_object, read_text, the_file
from deixis.data.formats.coco.values import whole_number
from deixis.data.formats.find_images import likely_folders
from deixis.data.formats.record import Format, Holds
from deixis.data.formats.shared.annotated_objects import AnnotatedObject, colour_values
from deixis.data.formats.shared.assemble import Picture, assemble, find_pictures, size_of
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import reads, require_regular
from deixis.errors import DataError
from deixis.geometry.masks import box_of_mask
from deixis.geometry.rle import bitmap_rle
from deixis.records import SampleList
from deixis.text import clean_name


def find_panoptic(path: Path) -> list[Path]:
    """The panoptic JSON files of a folder, or of its `annotations`; or such a file itself."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".json" and holds_text(path, '"segments_info"') else []
    files = [file for place in (path, path / "annotations") for file in sorted(place.glob("*.json"))]
    return [file for file in files if not is_left_by_macos(file) and holds_text(file, '"segments_info"')]


@reads("COCO's panoptic annotations")
def read_panoptic(
    path: str | Path, images: Path | None = None, masks: bool = True, findings: Findings | None = None
) -> SampleList:
    """A panoptic JSON file with its folder of PNGs beside it, or the folder that holds one.

    Segments of categories with `isthing` are objects with masks; those of stuff (sky, grass) have no single objects:
    they are left out, and counted in a warning, unless all categories are stuff. Crowds are kept as crowds.

    Raises:
        DataError: malformed JSON, missing images or PNGs, or a PNG of another size than its image.
    """
    file = the_file(path, find_panoptic, "panoptic JSON file")
    content = parse_object(read_text(file), str(file))
    rows = {key: _rows(content, key, file) for key in ("images", "annotations", "categories")}
    names = {row.get("id"): clean_name(str(row.get("name", ""))) for row in rows["categories"]}
    # Without `isthing` a category is one of things.
    stuff = {row.get("id") for row in rows["categories"] if not row.get("isthing", 1)}
    stuff = set() if len(stuff) == len(names) else stuff
    files = {row.get("id"): str(row.get("file_name", "")) for row in rows["images"]}
    segments = {row.get("image_id"): row for row in rows["annotations"]}
    ids = [key for key in files if key in segments]
    pngs = [str(segments[key].get("file_name") or f"{Path(files[key]).stem}.png") for key in ids]
    folders = likely_folders(file.parent, file.stem)
    paths = find_pictures(file, [files[key] for key in ids], images, folders, findings)
    maps = find_pictures(file, pngs, None, folders, findings)
    pictures, left_out = [], 0
    for key, image, png in zip(ids, paths, maps, strict=True):
        if image is None or png is None:
            continue
        with collecting(findings, "mask_malformed", png, f"image {key}", "image removed"):
            size_hw = size_of(image, None, findings)
            segment_ids = _segment_ids(png, size_hw)
            found = segments[key].get("segments_info")
            wanted = [one for one in found if one.get("category_id") not in stuff] if isinstance(found, list) else []
            left_out += len(found or ()) - len(wanted)
            objects = [_object(one, segment_ids, names, f"{png}: image {key}", masks) for one in wanted]
            pictures.append(Picture(image, size_hw, tuple(objects), f"{file.name}: image {key}"))
    if left_out:
        warnings.warn(
            f"{file}: left out {left_out} segments of {len(stuff)} categories of stuff, which are no single objects",
            stacklevel=3,
        )
    order = [name for key, name in names.items() if key not in stuff]
    return assemble(file, pictures, order, file.stem, findings)


def _rows(content: Mapping[str, Any], key: str, file: Path) -> list[Mapping[str, Any]]:
    rows = content.get(key)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(
            f"{file}: has no list of objects under {key!r}; a panoptic file needs images, annotations, categories"
        )
    return rows


def _segment_ids(png: Path, size_hw: tuple[int, int]) -> Int[np.ndarray, "h w"]:
    """The id of each pixel's segment: red + 256 green + 65536 blue."""
    require_regular(png)
    with Image.open(png) as picture:
        # Compared before the PNG is decoded.
        if picture.size != size_hw[::-1]:
            raise DataError(f"{png}: has {picture.size} pixels (width, height), its image {size_hw[::-1]}; restore it")
        return colour_values(picture)


def _object(
    segment: Any, segment_ids: Int[np.ndarray, "h w"], names: Mapping[Any, str], where: str, masks: bool
) -> AnnotatedObject:
    number = whole_number(segment.get("id")) if isinstance(segment, Mapping) else None
    if number is None or segment.get("category_id") not in names:
        raise DataError(f"{where}: a segment needs an id and a known category_id, got {str(segment)[:80]}")
    mask = segment_ids == number
    if not mask.any():
        raise DataError(f"{where}: segment {number} has no pixel in its PNG; restore the PNG or remove the segment")
    x1, y1, x2, y2 = box_of_mask(mask)
    rle = bitmap_rle(mask) if masks else None
    name, crowd = names[segment["category_id"]], bool(segment.get("iscrowd", 0))
    return AnnotatedObject(name, (x1, y1, x2, y2), float(mask.sum()), rle, crowd)


COCO_PANOPTIC = Format(
    "coco_panoptic", find_panoptic, read_panoptic, takes=("masks", "findings"), holds=Holds(masks=True)
)
