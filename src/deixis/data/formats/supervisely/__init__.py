"""Supervisely's projects: `meta.json`, and one JSON file per image with rectangles, polygons with holes and bitmaps."""

from __future__ import annotations

import base64
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import holds_text, parse_object, read_text, same_split
from deixis.data.formats.coco.values import image_size
from deixis.data.formats.record import Format, Holds
from deixis.data.formats.shared.annotated_objects import (
    AnnotatedObject,
    bitmap,
    bounds,
    laid_at,
    png_bitmap,
    points_of_pairs,
    polygon,
    with_holes,
)
from deixis.data.formats.shared.assemble import Picture, assemble, find_pictures, size_of
from deixis.data.formats.shared.split_folders import head_of
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import reads
from deixis.errors import DataError, NoSuchSplitError
from deixis.records import SampleList
from deixis.text import clean_name, tallied

_SETS = {"train", "val", "test"}
_OPEN = {"line", "polyline", "point", "graph", "cuboid", "cuboid_2d"}
_MAX_PNG_BYTES = 1 << 26


def find_supervisely(path: Path) -> list[Path]:
    """The annotation files of a project, of one of its data sets or of that's `ann`; or such a file itself."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".json" and _is_annotation(path) else []
    files = [file for folder in _ann_folders(path) for file in sorted(folder.glob("*.json"))]
    files = [file for file in files if not is_left_by_macos(file)]
    return files if any(map(_is_annotation, files[:3])) else []


def _ann_folders(path: Path) -> list[Path]:
    """The folders `ann` of a project, data set or itself; data sets may lie in the folder `datasets` of another."""
    if path.name == "ann":
        return [path]
    found = [folder for depth in ("ann", "*/ann", "*/datasets/*/ann", "*/*/ann") for folder in sorted(path.glob(depth))]
    return list(dict.fromkeys(folder for folder in found if folder.is_dir()))


def _is_annotation(file: Path) -> bool:
    head = head_of(file)
    return '"objects"' in head and '"size"' in head and ('"classTitle"' in head or holds_text(file, '"tags"'))


@reads("Supervisely annotations")
def read_supervisely(
    path: str | Path,
    images: Path | None = None,
    masks: bool = True,
    split: str | None = None,
    findings: Findings | None = None,
) -> SampleList:
    """A Supervisely project, or one of its data sets.

    Rectangles, polygons with holes and bitmaps are objects; points, lines and graphs are none and are counted in a
    warning. Class names are those of `meta.json`, in its order. Masks are kept for the images whose objects all have
    one: a rectangle has none.

    Args:
        path: the project's folder, a data set's, or one annotation file.
        images: the folder of images, where they are not in `img`.
        split: the data set to read; must be given where they are called train, val and test.

    Raises:
        DataError: malformed JSON, a shape that is none, or missing images.
    """
    folder = Path(path)
    files = _of_split(find_supervisely(folder), split, folder)
    if not files:
        raise DataError(f"{folder}: no annotation files of a Supervisely project in it; give the project's folder")
    pictures: list[Picture] = []
    left_out: Counter[str] = Counter()
    for ann in dict.fromkeys(file.parent for file in files):
        own = [file for file in files if file.parent == ann]
        home = ann.parent / "img" if (ann.parent / "img").is_dir() else ann.parent
        names = [file.name.removesuffix(".json") for file in own]  # a.jpg has a.jpg.json
        paths = find_pictures(ann, names, images, [home], findings)
        for file, image in zip(own, paths, strict=True):
            if image is not None:
                with collecting(findings, "file_malformed", file, "", "image removed"):
                    pictures.append(_picture(file, image, masks, left_out, findings))
    if left_out:
        warnings.warn(
            f"{folder}: left out {left_out.total()} objects that enclose nothing ({tallied(left_out)})", stacklevel=3
        )
    name = (folder if folder.is_dir() else folder.parent).resolve().name
    return assemble(folder, pictures, _names(files[0], pictures), name, findings)


def _of_split(files: list[Path], split: str | None, where: Path) -> list[Path]:
    sets = {same_split(file.parent.parent.name): file.parent.parent.name for file in files}
    if split is None:
        if len(_SETS & sets.keys()) > 1:
            raise DataError(f"{where}: has the splits {', '.join(sorted(sets))}; name one, as in {where}#train")
        return files
    chosen = [file for file in files if same_split(file.parent.parent.name) == same_split(split)]
    if not chosen:
        raise NoSuchSplitError(f"{where}: has no data set {split!r}, only {', '.join(sorted(sets))}")
    return chosen


def _names(file: Path, pictures: list[Picture]) -> list[str] | None:
    """The classes of the nearest `meta.json` above a file, and used ones that it lacks; None without one."""
    # Above `ann` are the data set, perhaps folders of data sets, and the project.
    meta = next((home / "meta.json" for home in list(file.parents)[1:5] if (home / "meta.json").is_file()), None)
    if meta is None:
        return None
    classes = parse_object(read_text(meta), str(meta)).get("classes")
    if not isinstance(classes, list) or not all(isinstance(one, Mapping) for one in classes):
        raise DataError(f"{meta}: has no list of classes, so it is not a Supervisely project's; restore it")
    titles = [clean_name(str(one.get("title", ""))) for one in classes if one.get("shape") not in _OPEN]
    used = sorted({clean_name(thing.label) for picture in pictures for thing in picture.objects} - set(titles))
    return [*filter(None, titles), *used] or None


def _picture(file: Path, image: Path, masks: bool, left: Counter[str], findings: Findings | None) -> Picture:
    content = parse_object(read_text(file), str(file))
    size, rows = content.get("size"), content.get("objects")
    if not isinstance(size, Mapping) or not isinstance(rows, list):
        raise DataError(f"{file}: has no size and objects, so it is not Supervisely's; move it away")
    try:
        stated = image_size(size.get("height"), size.get("width"))
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error
    size_hw = size_of(image, stated, findings)
    objects = []
    for number, row in enumerate(rows, start=1):
        with collecting(findings, "record_malformed", file, f"object {number}", "object removed"):
            thing = _object(row, size_hw, f"{file}: object {number}", masks, left)
            if thing is not None:
                objects.append(thing)
    return Picture(image, size_hw, tuple(objects), file.name)


def _object(row: Any, size_hw: tuple[int, int], where: str, masks: bool, left: Counter[str]) -> AnnotatedObject | None:
    if not isinstance(row, Mapping) or not isinstance(row.get("classTitle"), str) or not row["classTitle"].strip():
        raise DataError(f"{where}: has no classTitle; add one")
    kind = row.get("geometryType") or _kind(row)
    if kind in _OPEN:
        left[f"{kind}s"] += 1
        return None
    if kind not in _DRAW:
        raise DataError(f"{where}: geometryType {kind!r} is not one of {', '.join([*_DRAW, *sorted(_OPEN)])}")
    try:
        return _DRAW[kind](row, size_hw, masks)
    except ValueError as error:
        raise DataError(f"{where}: {error}; correct or remove the object") from error


def _kind(row: Mapping[str, Any]) -> str:
    """The kind of an object of older exports, which do not name it."""
    points = row.get("points")
    outer = points.get("exterior") if isinstance(points, Mapping) else None
    if row.get("bitmap"):
        return "bitmap"
    return "rectangle" if isinstance(outer, list) and len(outer) == 2 else "polygon"


def _outer(row: Mapping[str, Any]) -> np.ndarray:
    points = row.get("points")
    return points_of_pairs(points.get("exterior") if isinstance(points, Mapping) else None)


def _rectangle(row: Mapping[str, Any], size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    corners = _outer(row)
    if len(corners) < 2:
        raise ValueError(f"a rectangle needs two opposite corners, got {len(corners)} points")
    return AnnotatedObject(row["classTitle"], bounds(corners))


def _polygon(row: Mapping[str, Any], size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    holes = [points_of_pairs(hole) for hole in row["points"].get("interior") or []]
    return with_holes(polygon(row["classTitle"], [_outer(row)], size_hw, masks=masks), holes, size_hw)


def _bitmap(row: Mapping[str, Any], size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    """A PNG, packed by zlib and written as base64, laid at its origin."""
    found = row.get("bitmap")
    origin = points_of_pairs([found.get("origin")] if isinstance(found, Mapping) else None)[0]
    try:
        packed = base64.b64decode(str(found.get("data")), validate=True) if isinstance(found, Mapping) else b""
        data = zlib.decompressobj().decompress(packed, _MAX_PNG_BYTES)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"has a bitmap that is no zlib data as base64 ({error})") from error
    left, top = (round(value) for value in origin.tolist())
    return bitmap(row["classTitle"], laid_at(png_bitmap(data, size_hw), (left, top), size_hw), masks)


_DRAW: dict[str, Callable[[Mapping[str, Any], tuple[int, int], bool], AnnotatedObject]] = {
    "rectangle": _rectangle,
    "polygon": _polygon,
    "bitmap": _bitmap,
}


SUPERVISELY = Format(
    "supervisely", find_supervisely, read_supervisely, takes=("masks", "split", "findings"), holds=Holds(masks=True)
)
