"""VIA's files as plain rows: its JSON of versions 1 and 2, its CSV, and the project of version 3."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import parse_json, read_text
from deixis.errors import DataError

_SHAPES = {1: "point", 2: "rect", 3: "circle", 4: "ellipse", 5: "line", 6: "polyline", 7: "polygon"}  # VIA 3's numbers
EXTREME_RECTANGLE, EXTREME_CIRCLE = "extreme rectangle", "extreme circle"  # by points on them
_SHAPES |= {8: EXTREME_RECTANGLE, 9: EXTREME_CIRCLE}
_IMAGE_TYPE = 2
_COORDINATES = {
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "point": ("cx", "cy"),
}


@dataclass
class ViaRows:
    """The regions by image, each a pair of mappings: shape attributes and region attributes, as version 2 has them.

    Attributes:
        options: of each region attribute that is chosen from a list, the names by value, in their order.
        films: how many regions are of films or sounds.
    """

    images: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    films: int = 0


def parse_via(file: Path, findings: Findings | None) -> ViaRows:
    """The content of a VIA file of any version; with findings without the rows that cannot be used.

    Raises:
        DataError: malformed, or not VIA's.
    """
    text = read_text(file)
    if file.suffix.lower() == ".csv":
        return _table(text, file, findings)
    content = parse_json(text, str(file))
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds a {type(content).__name__}, not VIA's object of images")
    if "vid_list" in content.get("project", {}) or ("metadata" in content and "view" in content):
        return _version_3(content, file, findings)
    images = content.get("_via_img_metadata", content)
    rows = ViaRows(options=_options(content.get("_via_attributes", {})))
    for key, image in images.items() if isinstance(images, Mapping) else ():
        with collecting(findings, "record_malformed", file, str(key)[:80], "image removed"):
            name, regions = _image(image, key, file)
            rows.images.setdefault(name, []).extend(regions)
    return rows


def _image(image: Any, key: object, file: Path) -> tuple[str, list[tuple[Any, Any]]]:
    """The file name of an image of version 1 or 2, and its regions."""
    if not isinstance(image, Mapping) or not isinstance(image.get("filename"), str):
        raise DataError(f"{file}: {str(key)[:80]!r} has no filename; export the annotations from VIA again")
    regions = image.get("regions") or []
    found = list(regions.values()) if isinstance(regions, Mapping) else regions  # version 1 numbers them by key
    if not isinstance(found, list):
        raise DataError(f"{file}: {image['filename']}: regions must be a list, got {str(found)[:80]}")
    return image["filename"], [
        (region.get("shape_attributes"), region.get("region_attributes"))
        if isinstance(region, Mapping)
        else (None, None)
        for region in found
    ]


def _options(attributes: Any) -> dict[str, dict[str, str]]:
    region = attributes.get("region", {}) if isinstance(attributes, Mapping) else {}
    found = {}
    for name, attribute in region.items() if isinstance(region, Mapping) else ():
        options = attribute.get("options") if isinstance(attribute, Mapping) else None
        if isinstance(options, Mapping):
            found[str(name)] = {str(key): str(value or key) for key, value in options.items()}
    return found


def _table(text: str, file: Path, findings: Findings | None) -> ViaRows:
    reader = csv.DictReader(StringIO(text, newline=""))
    rows = ViaRows()
    try:
        for row in reader:
            named = {(key or "").strip().lstrip("#"): value or "" for key, value in row.items() if isinstance(key, str)}
            where = f"{file}: line {reader.line_num}"
            with collecting(findings, "record_malformed", file, f"line {reader.line_num}", "line removed"):
                if not named.get("filename"):
                    raise DataError(f"{where}: has no filename; export it from VIA again")
                regions = rows.images.setdefault(named["filename"], [])
                shape = parse_json(named.get("region_shape_attributes") or "{}", where)
                if shape:
                    regions.append((shape, parse_json(named.get("region_attributes") or "{}", where)))
    except csv.Error as error:
        raise DataError(f"{file}: line {reader.line_num}: malformed CSV: {error}") from error
    return rows


def _version_3(content: Mapping[str, Any], file: Path, findings: Findings | None) -> ViaRows:
    """Regions of version 3: `xy` is a number of the shape and its coordinates, `av` values by attribute."""
    attributes = {str(key): value for key, value in content.get("attribute", {}).items() if isinstance(value, Mapping)}
    names = {key: str(value.get("aname", key)) for key, value in attributes.items()}
    options = {
        key: {str(option): str(name) for option, name in value["options"].items()}
        for key, value in attributes.items()
        if isinstance(value.get("options"), Mapping) and value["options"]
    }
    files = {str(key): value for key, value in content.get("file", {}).items() if isinstance(value, Mapping)}
    pictures = {key: str(file.get("fname", "")) for key, file in files.items() if file.get("type", 2) == _IMAGE_TYPE}
    views = {
        str(key): [str(fid) for fid in view["fid_list"]]
        for key, view in content.get("view", {}).items()
        if isinstance(view, Mapping) and isinstance(view.get("fid_list"), list)
    }
    rows = ViaRows({name: [] for name in pictures.values()})
    for key, chosen in options.items():
        rows.options[names[key]] = {name: name for name in chosen.values()}
    for number, row in content.get("metadata", {}).items():
        with collecting(findings, "record_malformed", file, f"metadata {number}", "region removed"):
            shown = [fid for fid in views.get(str(row.get("vid")), [str(row.get("vid"))]) if fid in pictures]
            if not shown or row.get("z"):  # z: times in a film
                rows.films += 1
                continue
            values = {
                names.get(str(key), str(key)): _value(value, options.get(str(key), {}))
                for key, value in (row.get("av") or {}).items()
            }
            rows.images[pictures[shown[0]]].append((_shape(row.get("xy") or []), values))
    return rows


def _value(value: Any, options: Mapping[str, str]) -> Any:
    """A value as text; of several chosen, separated by commas, a mapping as version 2 has it."""
    text = str(value)
    if text in options:
        return options[text]
    parts = [part for part in text.split(",") if part in options]
    return {options[part]: True for part in parts} if parts else text


def _shape(xy: Sequence[Any]) -> dict[str, Any]:
    """The shape attributes that version 2 would have."""
    number, values = (xy[0], list(xy[1:])) if xy else (0, [])
    name = _SHAPES.get(number, f"shape {number}")
    if name in _COORDINATES:
        return {"name": name} | dict(zip(_COORDINATES[name], values, strict=False))
    return {"name": name, "all_points_x": values[::2], "all_points_y": values[1::2]}
