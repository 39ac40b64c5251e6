"""Which column of a table holds what: by their names, or where there are none by their values."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from pathlib import PurePosixPath

from deixis.data.formats.shared.box_values import BoxKind
from deixis.data.pixels.image_files import IMAGE_SUFFIXES

DELIMITERS = (",", ";", "\t", "|")
_HEAD_ROWS = 50
_SETS = {"train", "training", "validation", "validate", "val", "valid", "test", "unassigned"}
_OTHERS = ("ImageID", "LabelName"), ("region_shape_attributes",)  # Open Images, VIA

# Names of columns without case, blanks and marks; the first in a row that is there counts.
_IMAGE = (
    *("filename", "imagefilename", "imagefile", "filepath", "imagepath", "imagename", "imgname", "imgpath", "file"),
    *("path", "imageid", "imgid", "image", "img", "fname", "imageurl", "url", "frame", "name", "id"),
)
_CLASS = (
    *("class", "classname", "label", "labelname", "category", "categoryname", "objectname", "tag", "species", "type"),
    *("object", "classid", "labelid", "categoryid", "cls", "classes", "labels", "target", "name"),
)
_CROWD = ("iscrowd", "isgroupof", "crowd")
_SET = ("set", "split", "mluse", "usage", "subset", "partition")
_HEIGHT, _WIDTH = ("imageheight", "imgheight", "imgh", "height"), ("imagewidth", "imgwidth", "imgw", "width")
_TEXT = ("bbox", "bboxes", "box", "boxes", "boundingbox", "boundingboxes", "coordinates", "bndbox", "annotations")
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"),
    ("bboxx1", "bboxy1", "bboxx2", "bboxy2"),
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
    ("startx", "starty", "endx", "endy"),
    ("tlx", "tly", "brx", "bry"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("xtopleft", "ytopleft", "xbottomright", "ybottomright"),
    ("roix1", "roiy1", "roix2", "roiy2"),
)
_SIZES = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("xmin", "ymin", "w", "h"),
    ("xmin", "ymin", "width", "height"),
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"),
    ("bboxx", "bboxy", "bboxw", "bboxh"),
    ("left", "top", "width", "height"),
    ("left", "top", "w", "h"),
    ("boxx", "boxy", "boxwidth", "boxheight"),
)
_CENTRES = (
    ("xcenter", "ycenter", "width", "height"),
    ("xcentre", "ycentre", "width", "height"),
    ("xcenter", "ycenter", "w", "h"),
    ("centerx", "centery", "width", "height"),
    ("xc", "yc", "w", "h"),
    ("xc", "yc", "width", "height"),
    ("cx", "cy", "w", "h"),
    ("cx", "cy", "width", "height"),
)


@dataclass(frozen=True)
class Columns:
    """Positions of columns; None where there is no such column.

    Attributes:
        box: four positions, or the one of a text of numbers.
        kind: how the names call the box; `unknown` where there are none.
        names: the names in the first row; empty where it is data.
    """

    image: int
    box: tuple[int, ...]
    kind: BoxKind
    label: int | None
    height: int | None = None
    width: int | None = None
    set: int | None = None
    crowd: int | None = None
    names: tuple[str, ...] = ()


def split_rows(text: str, limit: int | None = None) -> tuple[list[tuple[int, list[str]]], str, Columns] | None:
    """The rows with their line numbers, the separator and the columns of a table; None where it is none of boxes.

    Args:
        text: the file, or its beginning.
        limit: of the rows to parse.

    Raises:
        csv.Error: a malformed table.
    """
    head = "\n".join(text.split("\n", _HEAD_ROWS)[:_HEAD_ROWS])
    for delimiter in DELIMITERS:
        rows = _rows(head, delimiter)
        found = find_columns([row for _, row in rows]) if rows else None
        if found is not None:
            whole = _rows(text if limit is None else head, delimiter)
            return (whole[1:] if found.names else whole)[:limit], delimiter, found
    return None


def _rows(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    return [(reader.line_num, [field.strip() for field in row]) for row in reader if any(map(str.strip, row))]


def find_columns(rows: Sequence[Sequence[str]]) -> Columns | None:
    """The columns of a table by its first rows; None where it has no images or no boxes."""
    return _by_names(rows[0]) or _by_values(rows)


def _by_names(first: Sequence[str]) -> Columns | None:
    plain = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in first]
    # Reversed, so that of two columns with one name the first counts.
    at = {name: position for position, name in reversed(list(enumerate(plain))) if name}
    if any(all(name in first for name in other) for other in _OTHERS):
        return None
    boxes: list[tuple[BoxKind, tuple[str, ...]]] = [
        # Corners first: TensorFlow's table has the image's width and height beside them, which are no size of a box.
        *(("corners", names) for names in _CORNERS),
        *(("centre", names) for names in _CENTRES),
        *(("xywh", names) for names in _SIZES),
        *(("text", (name,)) for name in _TEXT),
    ]
    kind, names = next(((kind, names) for kind, names in boxes if set(names) <= at.keys()), ("unknown", ()))
    image = next((name for name in _IMAGE if name in at), None)
    if image is None or not names:
        return None
    # A box's own width and height are not the image's.
    rest = {name: position for name, position in at.items() if name not in (image, *names)}

    def first_of(candidates: Sequence[str]) -> int | None:
        return next((rest[name] for name in candidates if name in rest), None)

    label, height, width = first_of(_CLASS), first_of(_HEIGHT), first_of(_WIDTH)
    if height is None or width is None:
        height = width = None
    return Columns(
        at[image],
        tuple(at[name] for name in names),
        kind,
        label,
        height,
        width,
        first_of(_SET),
        first_of(_CROWD),
        tuple(first),
    )


def _by_values(rows: Sequence[Sequence[str]]) -> Columns | None:
    """A table without names: a column of pictures, four of numbers beside each other, one of classes."""
    usual, _ = Counter(map(len, rows)).most_common(1)[0]
    columns = list(zip(*(row for row in rows if len(row) == usual), strict=True))
    image = _first(columns, lambda values: all(map(_is_picture, values)))
    if image is None:
        return None
    sets = _first(columns, lambda values: {value.lower() for value in values} <= _SETS)
    numeric = [any(values) and all(value == "" or is_number(value) for value in values) for values in columns]
    texts = [i for i, values in enumerate(columns) if i not in (image, sets) and not numeric[i] and any(values)]
    label = texts[0] if texts else None
    first = len(columns) - 8  # AutoML: four corners, of which the second and the last may be left out
    if first in (2, 3) and all(numeric[i] or not any(columns[i]) for i in range(first, len(columns))):
        return Columns(image, (first, first + 1, first + 4, first + 5), "corners", label, set=sets)
    if image == len(columns) - 3 >= 5 and all(numeric[image - 4 : image] + numeric[image + 1 :]):
        return Columns(image, tuple(range(image - 4, image)), "xywh", label, image + 2, image + 1)  # makesense.ai's
    start, length = _longest_run(numeric)
    if length not in (4, 5, 6, 7):
        return None
    # Six or seven numbers are the image's width and height, the box and perhaps a class.
    height, width = (start + 1, start) if length >= 6 else (None, None)
    if length == 5 and label is None and _is_class_first([columns[start + i] for i in range(5)]):
        return Columns(image, tuple(range(start + 1, start + 5)), "unknown", start, set=sets)
    start += 2 if length >= 6 else 0
    label = start + 4 if label is None and length in (5, 7) else label
    return Columns(image, tuple(range(start, start + 4)), "unknown", label, height, width, sets)


def _longest_run(flags: Sequence[bool]) -> tuple[int, int]:
    """(start, length) of the longest run of true flags; the last of several."""
    best, start = (0, 0), 0
    for flag, group in groupby(flags):
        length = len(list(group))
        if flag and length >= best[1]:
            best = (start, length)
        start += length
    return best


def _is_class_first(columns: Sequence[Sequence[str]]) -> bool:
    """Of five columns of numbers, whether the first has whole ones and the last has not."""
    return all(value.isdecimal() for value in columns[0] if value) and any("." in value for value in columns[4])


def _is_picture(text: str) -> bool:
    return PurePosixPath(text).suffix.lower() in IMAGE_SUFFIXES


def _first(columns: Sequence[Sequence[str]], test: Callable[[Sequence[str]], bool]) -> int | None:
    return next((position for position, values in enumerate(columns) if test(values)), None)


def is_number(text: str) -> bool:
    """Whether a field is a number; a comma may separate decimals."""
    return re.fullmatch(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?", text) is not None
