"""Names for classes that annotations know by number: the lists that tools write beside them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import parse_json, read_text
from deixis.data.yaml_text import parse_yaml
from deixis.errors import DataError
from deixis.text import clean_name

_TEXTS = ("classes.txt", "labels.txt", "class_names.txt", "names.txt", "obj.names", "label_names.txt")
_TABLES = ("classes.csv", "class_list.csv", "labels.csv", "class_names.csv", "label_map.csv")
_MAPS = ("id2label.json", "classes.json", "class_names.json", "labels.json", "label_map.json")
_PROTOS = ("label_map.pbtxt", "labelmap.pbtxt")
_DATA_CARDS = ("README.md", "dataset_infos.json", "dataset_info.json")
_PROTO_ITEM = re.compile(r"item\s*\{(.*?)\}", re.DOTALL)
HINT = "name them in a file classes.txt beside it, one name per line from number {first} on"


def class_names(folders: Sequence[Path], first: int = 0) -> tuple[dict[int, str], Path] | None:
    """The names by number that the first list of classes gives, and that list; None where there is none.

    Read are lines of names (`classes.txt`, counted from `first`), tables `name,number`, JSON maps from numbers to names
    or back, TensorFlow's `label_map.pbtxt`, and the `class_label` of a Hugging Face data card.

    Args:
        folders: where to look.
        first: the number of the first line of a list without numbers.

    Raises:
        DataError: a list that cannot be read.
    """
    for folder in folders:
        for name in (*_TEXTS, *_TABLES, *_MAPS, *_PROTOS, *_DATA_CARDS):
            file = folder / name
            if file.is_file():
                found = _read(file, first)
                if found:
                    return found, file
    return None


def listed(names: Sequence[str], folders: Sequence[Path]) -> list[str] | None:
    """All names in order where `classes.txt`, or the like, has these among its lines; None where none has.

    Raises:
        DataError: a list that cannot be read.
    """
    files = [folder / name for folder in folders for name in _TEXTS]
    lists = (list(_read(file, 0).values()) for file in files if file.is_file())
    return next((lines for lines in lists if set(names) <= set(lines)), None)


def _read(file: Path, first: int) -> dict[int, str]:
    text = read_text(file)
    if file.name in _TEXTS:
        lines = [clean_name(line) for line in text.splitlines() if line.strip()]
        lines = [line for line in lines if line != "__ignore__"]  # the first line of labelme's labels.txt
        return dict(enumerate(lines, start=first))
    if file.name in _TABLES:
        return _pairs(list(csv.reader(StringIO(text, newline=""))))
    if file.name in _PROTOS:
        return _proto(text)
    if file.name == "README.md":
        return _data_card(text, str(file))
    content = parse_json(text, str(file))
    return _class_label(content) if file.name in _DATA_CARDS else _json_map(content, first)


def _data_card(text: str, where: str) -> dict[int, str]:
    """The YAML at the head of a README, where it is one of a data set."""
    head = text.split("\n---", 1)[0].removeprefix("---") if text.startswith("---") else ""
    try:
        return _class_label(parse_yaml(head, where, as_text=True)) if head else {}
    except DataError:  # a README for people
        return {}


def _pairs(rows: list[list[str]]) -> dict[int, str]:
    found = {}
    for row in rows:
        fields = [field.strip() for field in row]
        if len(fields) == 2 and fields[1].isdecimal():
            found[int(fields[1])] = clean_name(fields[0])
        elif len(fields) == 2 and fields[0].isdecimal():
            found[int(fields[0])] = clean_name(fields[1])
    return found


def _proto(text: str) -> dict[int, str]:
    found = {}
    for body in _PROTO_ITEM.findall(text):
        number = re.search(r"\bid\s*:\s*(\d+)", body)
        # In TensorFlow's label maps of COCO and Open Images `name` is an id such as /m/01g317.
        name = re.search(r"\bdisplay_name\s*:\s*['\"](.*?)['\"]", body) or re.search(
            r"\bname\s*:\s*['\"](.*?)['\"]", body
        )
        if number and name:
            found[int(number[1])] = clean_name(name[1])
    return found


def _json_map(content: Any, first: int) -> dict[int, str]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return {number: clean_name(name) for number, name in enumerate(content, start=first)}
    if not isinstance(content, Mapping):
        return {}
    if "id2label" in content:
        return _json_map(content["id2label"], first)
    found = {}
    for key, value in content.items():
        if isinstance(value, str) and key.isdecimal():
            found[int(key)] = clean_name(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            found[value] = clean_name(key)
    return found


def _class_label(content: Any, depth: int = 12) -> dict[int, str]:
    """The names under the first `class_label`, or `ClassLabel`, of nested lists and mappings."""
    if depth == 0:
        return {}
    if isinstance(content, Mapping):
        if content.get("_type") == "ClassLabel" and "names" in content:
            return _names(content["names"])
        if isinstance(content.get("class_label"), Mapping):
            return _names(content["class_label"].get("names"))
    parts = list(content.values()) if isinstance(content, Mapping) else content if isinstance(content, list) else []
    return next(filter(None, (_class_label(part, depth - 1) for part in parts)), {})


def _names(names: Any) -> dict[int, str]:
    if isinstance(names, list):
        return {number: clean_name(str(name)) for number, name in enumerate(names)}
    if isinstance(names, Mapping) and all(str(key).isdecimal() for key in names):
        return {int(key): clean_name(str(name)) for key, name in names.items()}
    return {}


def named(
    numbers: Sequence[int], folders: Sequence[Path], where: str, first: int = 0
) -> tuple[dict[int, str], list[str], str]:
    """Names for the numbers of a data set.

    Returns:
        the name of each number; all names in the order of their numbers; and a note for the user where there was no
        list, so that the numbers themselves are the names, else "".

    Raises:
        DataError: a list that lacks a number.
    """
    known = class_names(folders, first)
    if known is None:
        names = {number: str(number) for number in sorted(set(numbers))}
        return names, list(names.values()), f"classes have numbers but no names; {HINT.format(first=first)}"
    names, file = known
    missing = sorted(set(numbers) - names.keys())
    if missing and not set(numbers) - {number + 1 for number in names}:  # counted from 1, listed from 0
        names = {number + 1: name for number, name in names.items()}
        missing = []
    if missing:
        raise DataError(f"{where}: class {missing[0]} is not among the {len(names)} names of {file.name}; add it there")
    return names, [names[number] for number in sorted(names)], ""
