"""VIA's projects and annotation files: rectangles, polygons, circles and ellipses, classes in a region attribute."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import the_file
from deixis.data.formats.coco.values import finite_number
from deixis.data.formats.find_images import likely_folders
from deixis.data.formats.shared.annotated_objects import AnnotatedObject, Points, bounds, ellipse_outline, polygon
from deixis.data.formats.shared.assemble import Picture, assemble, sized_pictures
from deixis.data.formats.shared.split_folders import head_of
from deixis.data.formats.via.files import EXTREME_CIRCLE, EXTREME_RECTANGLE, ViaRows, parse_via
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import reads
from deixis.errors import DataError
from deixis.records import SampleList
from deixis.text import clean_name, tallied

_USUAL = ("class", "label", "name", "type", "category", "object", "species", "kind", "tag")
_OPEN = {"point", "line", "polyline"}
_ONE_CLASS = "object"


def find_via(path: Path) -> list[Path]:
    """The VIA files of a folder, or of its `annotations`; or a file itself."""
    if not path.is_dir():
        return [path] if path.suffix.lower() in (".json", ".csv") and _is_via(path) else []
    files = [file for place in (path, path / "annotations") for file in sorted(place.glob("*.[jc]s*"))]
    return [file for file in files if not is_left_by_macos(file) and file.is_file() and _is_via(file)]


def _is_via(file: Path) -> bool:
    head = head_of(file)
    if file.suffix.lower() == ".csv":
        return "region_shape_attributes" in head.split("\n", 1)[0]
    keys = ('"_via_settings"', '"_via_img_metadata"'), ('"vid_list"', '"project"'), ('"regions"', '"filename"')
    return file.suffix.lower() == ".json" and any(
        all(key in head for key in some) and '"assets"' not in head for some in keys
    )


@reads("VIA annotations")
def read_via(
    path: str | Path, images: Path | None = None, masks: bool = True, findings: Findings | None = None
) -> SampleList:
    """A VIA project or annotation file (JSON of version 1, 2 or 3, or CSV), or the folder that holds one.

    Rectangles, polygons, circles and ellipses are objects; points and lines are none and are counted in a warning.
    The class is the value of a region attribute: the only one, or the one of a usual name, or the one that most
    regions have; where there are several a warning says which. A region with several chosen values is an object of
    each. Masks are kept for the images whose objects all have one: a rectangle has none.

    Raises:
        DataError: malformed, a region without a class or of an unknown shape, or missing images.
    """
    file = the_file(path, find_via, "VIA file")
    rows = parse_via(file, findings)
    if not rows.images:
        raise DataError(f"{file}: lists no image; there is nothing to train on or evaluate")
    there = sized_pictures(file, rows.images, images, likely_folders(file.parent), findings=findings)
    attribute, notes = _class_attribute(rows)
    left_out: Counter[str] = Counter()
    pictures = []
    for name, image, size_hw in there:
        objects: list[AnnotatedObject] = []
        for number, (shape, values) in enumerate(rows.images[name], start=1):
            place = f"{name}: region {number}"
            with collecting(findings, "record_malformed", file, place, "region removed"):
                objects += _objects(shape, values, attribute, size_hw, f"{file}: {place}", masks, left_out)
        pictures.append(Picture(image, size_hw, tuple(objects), f"{file.name}: {name}"))
    if left_out:
        notes.append(f"left out {left_out.total()} regions that enclose nothing ({tallied(left_out)})")
    if rows.films:
        notes.append(f"left out {rows.films} annotations of films or whole images")
    if notes:
        warnings.warn(f"{file}: {'; '.join(notes)}", stacklevel=3)
    return assemble(file, pictures, _names(rows, attribute, pictures), file.resolve().parent.name, findings)


def _class_attribute(rows: ViaRows) -> tuple[str | None, list[str]]:
    """The region attribute that holds the class, None where regions have none; and notes for the user."""
    counts: Counter[str] = Counter()
    regions = [values for found in rows.images.values() for _, values in found]
    for values in regions:
        if isinstance(values, Mapping):
            counts.update(str(key) for key, value in values.items() if _chosen(value))
    if not counts and len(rows.options) == 1:
        return next(iter(rows.options)), []
    if not counts:
        return None, [f"regions have no attributes; every object is {_ONE_CLASS!r}"] if regions else []
    usual = [name for word in reversed(_USUAL) for name in counts if name.strip().lower() in (word, f"{word}s")]
    ranks = {name: rank for rank, name in enumerate(usual, start=1)}
    # what half of the regions have goes before a usual name, and that before what is most frequent
    best = max(counts, key=lambda name: (counts[name] >= 0.5 * len(regions), ranks.get(name, 0), counts[name]))
    others = sorted(counts.keys() - {best})
    return best, [f"the class is the region attribute {best!r}, not {', '.join(others)}"] if others else []


def _chosen(value: Any) -> list[str]:
    """The values of an attribute: a text, or what is ticked of several."""
    if isinstance(value, Mapping):
        return [str(key) for key, ticked in value.items() if ticked in (True, "true", 1, "1")]
    text = clean_name(str(value)) if isinstance(value, str | int | float) else ""
    return [text] if text else []


def _objects(
    shape: Any,
    values: Any,
    attribute: str | None,
    size_hw: tuple[int, int],
    where: str,
    masks: bool,
    left: Counter[str],
) -> Iterator[AnnotatedObject]:
    kind = shape.get("name") if isinstance(shape, Mapping) else None
    if kind in _OPEN:
        left[f"{kind}s"] += 1
        return
    if kind not in _DRAW:
        raise DataError(f"{where}: shape {kind!r} is not one of {', '.join([*_DRAW, *sorted(_OPEN)])}; correct it")
    names = [_ONE_CLASS] if attribute is None else _chosen(values.get(attribute) if isinstance(values, Mapping) else "")
    if not names:
        raise DataError(f"{where}: has no value of {attribute!r}, which holds the class; choose one, or remove it")
    for name in names:
        try:
            yield _DRAW[kind](name, shape, size_hw, masks)
        except ValueError as error:
            raise DataError(f"{where}: {error}; correct or remove the region") from error


def _number(shape: Mapping[str, Any], key: str) -> float:
    value = finite_number(shape.get(key))
    if value is None:
        raise ValueError(f"{key} must be a number, got {shape.get(key)!r}")
    return value


def _rect(name: str, shape: Mapping[str, Any], size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    x, y, width, height = (_number(shape, key) for key in ("x", "y", "width", "height"))
    return AnnotatedObject(name, (x, y, x + width, y + height))


def _round(name: str, shape: Mapping[str, Any], size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    centre = _number(shape, "cx"), _number(shape, "cy")
    radii = (_number(shape, "r"),) * 2 if "r" in shape else (_number(shape, "rx"), _number(shape, "ry"))
    angle = finite_number(shape.get("theta")) or 0.0  # radians
    return polygon(name, [ellipse_outline(centre, radii, math.degrees(angle))], size_hw, masks=masks)


def _polygon(name: str, shape: Mapping[str, Any], size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    return polygon(name, [_points(shape)], size_hw, masks=masks)


def _bounded(name: str, shape: Mapping[str, Any], size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    """A rectangle by points on its sides."""
    points = _points(shape)
    if not len(points):
        raise ValueError("has no point")
    return AnnotatedObject(name, bounds(points))


def _through_three(name: str, shape: Mapping[str, Any], size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    """A circle by three points on it; its centre by Cramer's rule."""
    if len(points := _points(shape)) < 3:
        raise ValueError(f"a circle needs three points, got {len(points)}")
    (x1, y1), (x2, y2), (x3, y3) = points[:3].tolist()
    det = 2 * (x1 * (y2 - y3) + x2 * (y3 - y1) + x3 * (y1 - y2))
    if not det:
        raise ValueError("a circle needs three points that are not on one line")
    a, b, c = x1 * x1 + y1 * y1, x2 * x2 + y2 * y2, x3 * x3 + y3 * y3
    cx = (a * (y2 - y3) + b * (y3 - y1) + c * (y1 - y2)) / det
    cy = (a * (x3 - x2) + b * (x1 - x3) + c * (x2 - x1)) / det
    radius = math.hypot(x1 - cx, y1 - cy)
    return _round(name, {"cx": cx, "cy": cy, "r": radius}, size_hw, masks)


def _points(shape: Mapping[str, Any]) -> Points:
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        raise ValueError("all_points_x and all_points_y must be lists of the same length")
    numbers = [finite_number(value) for value in (*xs, *ys)]
    if None in numbers:
        raise ValueError("points must be finite numbers")
    return np.array(numbers, np.float64).reshape(2, -1).T


_DRAW = {"rect": _rect, "polygon": _polygon, "circle": _round, "ellipse": _round}
_DRAW |= {EXTREME_RECTANGLE: _bounded, EXTREME_CIRCLE: _through_three}


def _names(rows: ViaRows, attribute: str | None, pictures: list[Picture]) -> list[str] | None:
    """The options of the attribute in their order, then values that are none of them, sorted; None without options."""
    options = list(rows.options.get(attribute or "", {}))
    if not options:
        return None
    used = {thing.label for picture in pictures for thing in picture.objects}
    names = [clean_name(name) for name in options if clean_name(name)]
    return [*names, *sorted(used - set(names))]
