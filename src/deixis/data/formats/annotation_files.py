"""What readers share: reading text, finding image files, and warnings that count."""

from __future__ import annotations

import json
import mmap
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deixis.data.findings import Findings
from deixis.data.formats.find_images import Located, folded, pictures_by_name, spellings, with_other_suffix
from deixis.data.pixels.image_files import HEAD, kind_of_content
from deixis.data.reading import require_regular
from deixis.errors import DataError
from deixis.geometry.pixel_boxes import clip_boxes
from deixis.records import Instances, Vocabulary
from deixis.text import clean_name

# JSON's escapes: whole characters of two, halves, others. Halves from dc80 on are bytes of file names in no UTF-8.
_ESCAPES = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(?P<half>\\u[dD](?:[89abABdDeEfF]..|[cC][0-7].))|\\.")


_NAMED = 4
MAX_AREA_PX = 1e12  # a million pixels squared: no annotated object is larger


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: it is missing, no file, may not be read, or is no text; an archive is called one.
    """
    require_regular(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: annotation file not found; check the path") from error
    except OSError as error:
        raise DataError(f"{path}: cannot read ({error.strerror}); check the path and its permissions") from error
    # Before decoding: of an archive or a picture that fails anyhow, with a message about bytes that helps nobody.
    kind = kind_of_content(content[:HEAD])
    if kind is not None:
        raise DataError(f"{path}: is {kind}")
    try:
        # Line ends of one kind, as readers split at "\n" and name lines by their number.
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start}); export it again") from error


def holds_text(path: Path, text: str) -> bool:
    """Whether a file has some bytes anywhere, found without parsing it or holding it in memory."""
    try:
        require_regular(path)
        # Mapped and not read: recognition searches files of gigabytes, several times over.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text.encode()) >= 0
    except (OSError, ValueError, DataError):  # ValueError: an empty file cannot be mapped
        return False


def parse_json(text: str, where: str) -> Any:
    """JSON of any kind. Escapes that are half a character become the sign for an unknown one.

    Raises:
        DataError: the text is no JSON, too deep, or has an object with two values for one key.
    """
    # `json.loads` takes half a character for a whole one, which then cannot be written to any UTF-8 file.
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPES.sub(lambda found: "\\ufffd" if found["half"] else found[0], text)
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: malformed JSON: {error}; export or copy the file again") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of distinct keys; Python would keep the last of several, without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        for key, value in pairs:
            # The same value twice loses nothing.
            if content[key] is not value and content[key] != value:
                raise ValueError(f"the key {key[:60]!r} occurs more than once, with different values")
    return content


def parse_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the text is no JSON, or JSON of another kind.
    """
    content = parse_json(text, where)
    if not isinstance(content, dict):
        raise DataError(f"{where}: holds a {type(content).__name__}, not a JSON object")
    return content


def vocabulary_of(names: Sequence[str], where: str) -> Vocabulary:
    """A vocabulary with ids from 1.

    Raises:
        DataError: no name, a blank one or one twice.
    """
    try:
        return Vocabulary(tuple(map(clean_name, names)))
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


class ImageIndex:
    """The image files of some folders, by name and by stem, upper and lower case alike; earlier folders win."""

    def __init__(self, folders: Iterable[Path]) -> None:
        listed = [pictures_by_name(folder) for folder in folders if folder.is_dir()]
        self._by_name, self._by_stem = [names for names, _ in listed], [stems for _, stems in listed]

    def find(self, file_name: str, stem: str) -> Path | None:
        """The image of that name (its folders ignored), else the one with that stem.

        Raises:
            DataError: several files of a folder may be meant, and none is called exactly so.
        """
        names = [spelling.rsplit("/", 1)[-1] for spelling in spellings(file_name)]
        stems = list(spellings(stem))
        files = _first(self._by_name, names) or _first(self._by_stem, stems)
        exact = next((file for name in names for file in files if file.name == name), None)
        alike = [file for file in files if file.stem in stems] or files
        if exact is None and len(alike) > 1:
            asked, other = file_name or stem, alike[1].name
            raise DataError(f"{alike[0]}: {asked!r} may be this file or {other}; remove or rename one of them")
        return exact or next(iter(alike), None)


def _first(folders: Sequence[Mapping[str, list[Path]]], names: Sequence[str]) -> list[Path]:
    """The files of the first of some names that a folder has, in the first folder that has it."""
    keys = dict.fromkeys(map(folded, names))
    return next((found[key] for key in keys for found in folders if key in found), [])


def only_file(found: Sequence[Path], folder: Path, what: str) -> Path:
    """The only file among those found in a folder.

    Raises:
        DataError: there are several, which are named, or none.
    """
    if len(found) != 1:
        seen = ", ".join(file.name for file in found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
        raise DataError(f"{folder}: expected one {what} in it, found {seen or 'none'}; give the file itself")
    return found[0]


def the_file(path: str | Path, find: Callable[[Path], list[Path]], what: str) -> Path:
    """A file itself, or the only one that `find` finds in a folder.

    Raises:
        DataError: a folder has none, or several.
    """
    place = Path(path)
    return only_file(find(place), place, what) if place.is_dir() else place


def same_split(name: str) -> str:
    """One name for what tools call `val`, `valid` or `validation`.

    >>> same_split("valid"), same_split("train")
    ('val', 'train')
    """
    return "val" if name in ("valid", "validation") else name


def report_missing(findings: Findings, missing: Sequence[tuple[str, str]]) -> None:
    """A finding for each (image file name, where it is asked for) that is not there."""
    for name, where in missing:
        findings.add("image_missing", name, where, "is not there", "image removed")


def require_no_missing(source: str, missing: Sequence[str], total: int, searched: Sequence[Path]) -> None:
    """Raises:
    DataError: naming the first missing image, how many there are, and where they were looked for.
    """
    if missing:
        near = with_other_suffix(searched, missing[0])
        way = (
            f"{near.name} is there: correct the names in the annotations" if near else "give their folder with --images"
        )
        raise DataError(
            f"{source}: {len(missing)} of {total} image files not found, the first is {missing[0]!r}; looked in "
            f"{', '.join(map(str, searched))}; {way}"
        )


def settle_located(
    source: str, rows: Sequence[tuple[str, str]], located: Located, searched: Sequence[Path], findings: Findings | None
) -> None:
    """Report each (file name, where it is asked for) that led to no file of its own.

    Raises:
        DataError: without findings, or where no name led anywhere; see `require_located`.
    """
    # Without a single file the folder is the wrong one: that is one error, and no finding for each image.
    if findings is None or not any(located.files):
        require_located(source, [name for name, _ in rows], located, searched)
        return
    for position, fault in located.faults.items():
        findings.add("image_misplaced", *rows[position], fault, "image removed")
    missing = [i for i, file in enumerate(located.files) if file is None and i not in located.faults]
    report_missing(findings, [rows[i] for i in missing])


def require_located(source: str, names: Sequence[str], located: Located, searched: Sequence[Path]) -> None:
    """Raises:
    DataError: a name that may mean several files, or two that lead to one, or else a missing image.
    """
    if located.faults:
        raise DataError(
            f"{source}: {len(located.faults)} of {len(names)} images are not where their names point: "
            f"{next(iter(located.faults.values()))}; give the folder that the names begin in with --images"
        )
    missing = [name for name, file in zip(names, located.files, strict=True) if file is None]
    require_no_missing(source, missing, len(names), searched)


def clip_instances(instances: Instances, size_hw: tuple[int, int], keep_all: bool = False) -> tuple[Instances, int]:
    """Boxes cut to the image; the objects without area that this leaves are dropped and counted.

    With `keep_all` nothing is cut or dropped: for `data check`, which looks at boxes as they are in the file.
    """
    if keep_all:
        return instances, 0
    boxes = clip_boxes(instances.boxes_xyxy_px, size_hw)
    keep = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    # The area in the file is that of the whole object, or of its mask; it stays although the box was cut.
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    sound = instances.areas_px < MAX_AREA_PX  # not those of a box far outside
    areas = np.where(sound, instances.areas_px, sides.prod(1))
    clipped = replace(instances, boxes_xyxy_px=boxes, areas_px=areas)
    return clipped.select(keep), int(np.count_nonzero(~keep))


def warn_dropped(source: str, dropped: Sequence[str]) -> None:
    """One warning for all boxes dropped, naming the first."""
    if dropped:
        warnings.warn(
            f"{source}: dropped {len(dropped)} boxes without area inside their image, the first in {dropped[0]}",
            stacklevel=3,
        )
