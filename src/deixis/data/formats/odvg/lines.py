"""One line of an ODVG file, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deixis.data.formats.annotation_files import parse_object
from deixis.data.formats.coco.values import finite_number, image_size
from deixis.data.formats.shared.box_values import in_order
from deixis.data.reading import require_regular
from deixis.errors import DataError
from deixis.records import Spans
from deixis.text import clean_name, whole_characters

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class OdvgLine:
    """The content of one line.

    Attributes:
        where: file and line, for messages.
        names: the phrases of a grounding line, in order; None for a detection line.
        objects: corners in pixels, and the class name or phrase.
        categories: label to name, as a detection line gives them.
        given_spans: characters of phrases in the caption, as the line gives them, unchecked.
    """

    where: str
    file_name: str
    size_hw: tuple[int, int] | None
    names: tuple[str, ...] | None
    objects: tuple[tuple[Box, str], ...]
    categories: dict[int, str] = field(default_factory=dict)
    caption: str = ""
    given_spans: dict[str, Spans] = field(default_factory=dict)


def is_lines_file(file: Path) -> bool:
    """Whether the first line of a file is an ODVG object of its own."""
    try:
        require_regular(file)
        with file.open(encoding="utf-8-sig") as lines:
            first = parse_object(next(lines, ""), str(file))
    except (OSError, UnicodeDecodeError, DataError):
        return False
    return "filename" in first and ("detection" in first or "grounding" in first)


def parse_line(text: str, where: str, labels: Mapping[int, str] | None) -> OdvgLine:
    """Read a line.

    Args:
        labels: the label map, or None where there is none and categories name themselves.

    Raises:
        DataError: something in it is not as the format wants it.
    """
    content = parse_object(text, where)
    file_name = content.get("filename")
    if not isinstance(file_name, str) or not file_name:
        raise DataError(f"{where}: has no filename, got {file_name!r}")
    size_hw = _size(content, where)
    if isinstance(content.get("grounding"), dict):
        return _grounding(content["grounding"], where, file_name, size_hw)
    if isinstance(content.get("detection"), dict):
        return _detection(content["detection"], where, file_name, size_hw, labels)
    raise DataError(f"{where}: has neither an object 'detection' nor an object 'grounding'")


def lists_phrases(names: tuple[str, ...]) -> str:
    """The caption that only lists its phrases: each one, then ` . `.

    >>> lists_phrases(("a dog", "a cat"))
    'a dog . a cat .'
    """
    return " ".join(f"{name} ." for name in names)


def _size(content: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    height, width = content.get("height"), content.get("width")
    if height is None or width is None:
        return None
    try:
        return image_size(height, width)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _detection(
    content: Mapping[str, Any],
    where: str,
    file_name: str,
    size_hw: tuple[int, int] | None,
    labels: Mapping[int, str] | None,
) -> OdvgLine:
    objects, categories = [], {}
    for number, item in enumerate(_dicts(content.get("instances", []), f"{where}: instances"), start=1):
        place = f"{where}: instance {number}"
        label, name = _category(item, place, labels)
        categories[label] = name
        objects += [(box, name) for box in _boxes(item.get("bbox"), place)]
    return OdvgLine(where, file_name, size_hw, None, tuple(objects), categories)


def _category(item: Mapping[str, Any], where: str, labels: Mapping[int, str] | None) -> tuple[int, str]:
    label, category = item.get("label"), item.get("category")
    if not isinstance(label, int) or isinstance(label, bool):
        raise DataError(f"{where}: label must be a whole number, got {label!r}")
    if category is not None and (not isinstance(category, str) or not category.strip()):
        raise DataError(f"{where}: category must be a name, got {category!r}")
    if labels is None:
        if category is None:
            raise DataError(f"{where}: has no category and there is no label map; put label_map.json beside the file")
        return label, clean_name(category)
    if label not in labels:
        raise DataError(f"{where}: label {label} is not among the {len(labels)} of the label map")
    if category is not None and clean_name(category).lower() != labels[label].lower():
        raise DataError(f"{where}: label {label} is {labels[label]!r} in the label map, its category {category!r}")
    return label, labels[label]


def _grounding(content: Mapping[str, Any], where: str, file_name: str, size_hw: tuple[int, int] | None) -> OdvgLine:
    caption = content.get("caption") or ""
    if not isinstance(caption, str):
        raise DataError(f"{where}: caption must be text, got {str(caption)[:80]!r}")
    caption = whole_characters(caption)
    objects: list[tuple[Box, str]] = []
    names: dict[str, None] = {}
    given: dict[str, Spans] = {}
    for number, item in enumerate(_dicts(content.get("regions", []), f"{where}: regions"), start=1):
        place = f"{where}: region {number}"
        phrases = item.get("phrase")
        phrases = phrases if isinstance(phrases, list) else [phrases]
        if not phrases or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
            raise DataError(f"{place}: phrase must be text or a list of texts, got {item.get('phrase')!r}")
        boxes = _boxes(item.get("bbox"), place)
        for phrase in dict.fromkeys(map(clean_name, phrases)):
            names[phrase] = None
            objects += [(box, phrase) for box in boxes]
        # In a region of several phrases it is not said whose characters these are.
        if len(phrases) == 1 and item.get("tokens_positive"):
            given[clean_name(phrases[0])] = _spans(item["tokens_positive"], place)
    if caption == lists_phrases(tuple(names)):
        caption = ""
    return OdvgLine(where, file_name, size_hw, tuple(names), tuple(objects), caption=caption, given_spans=given)


def _spans(value: Any, where: str) -> Spans:
    spans = value if isinstance(value, list) else [value]
    if not all(isinstance(s, list) and len(s) == 2 and all(type(place) is int for place in s) for s in spans):
        raise DataError(f"{where}: tokens_positive must be a list of [start, end), got {str(value)[:80]}")
    return tuple((start, end) for start, end in spans)


def _dicts(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{where} must be a list of objects, got {str(value)[:80]}")
    return value


def _boxes(value: Any, where: str) -> list[Box]:
    """One box, or a list of boxes."""
    many = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    boxes = []
    for box in many:
        numbers = [finite_number(number) for number in box] if isinstance(box, list) and len(box) == 4 else [None]
        if any(number is None for number in numbers):
            raise DataError(f"{where}: bbox must be four finite numbers [x1, y1, x2, y2], got {box!r}")
        x1, y1, x2, y2 = in_order(np.array([float(number or 0) for number in numbers])).tolist()
        boxes.append((x1, y1, x2, y2))
    return boxes
