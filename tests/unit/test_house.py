"""The tree printed in docs/architecture.md is the tree of the package, and its rooms stay small enough to survey."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import deixis
from deixis.data.formats.table import FORMATS

PACKAGE = Path(deixis.__file__).parent
PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs" / "architecture.md"
MAX_FILES = 45  # modules of a room: options/ has one per command; most rooms have at most 15


def rooms() -> set[str]:
    """The folders with modules, without those of single formats: docs/formats.md lists them, which is tested there."""
    found = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    return found - {f"data/formats/{name}" for name in FORMATS}


def printed_rooms(text: str) -> set[str]:
    """The folders of the tree in the first code block, by their indentation."""
    found, above = set[str](), list[str]()
    for line in text.split("```")[1].splitlines():
        if names := re.match(r"( +)((?:\w+/ ?)+)", line):
            depth = len(names[1]) // 2 - 1
            for name in names[2].split():
                above = [*above[:depth], name.rstrip("/")]
                found.add("/".join(above))
    return found


def test_the_printed_tree_is_the_tree() -> None:
    assert printed_rooms(DOCS.read_text()) == rooms()


def test_a_room_that_is_not_printed_is_noticed() -> None:
    text = DOCS.read_text()
    assert printed_rooms(text.replace("    batching/  ", "    baking/  ")) ^ rooms() == {"data/batching", "data/baking"}


def test_rooms_are_small() -> None:
    sizes = {room: len(list((PACKAGE / room).glob("*.py"))) for room in rooms()}
    assert max(sizes.values()) <= MAX_FILES, sizes
    assert sum(size > 15 for size in sizes.values()) <= 3, sizes


def importers(room: str) -> set[str]:
    """The modules outside a room of `models/` that import from it."""
    names = re.compile(rf"^\s*(?:from|import) deixis\.models\.{room}\b", re.MULTILINE)
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    inside = f"models/{room}/"
    return {name for name, path in paths.items() if not name.startswith(inside) and names.search(path.read_text())}


def test_a_family_of_detectors_has_one_door() -> None:
    found = importers("grounding_dino")
    assert "models/checkpoints.py" in found
    others = {name for name in found if not name.startswith("models/onnx/")} - {"models/checkpoints.py"}
    assert others <= {"models/sa2va/weights/layout.py"}, "it shares the form of its table of names"


def test_to_add_a_family_of_detectors_six_files_are_touched() -> None:
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith("| a family of detectors |"))
    places = re.findall(r"`((?:models|losses|options)/[\w/.]*)`", row)
    assert len(places) == 6
    assert all((PACKAGE / place).exists() for place in places)


def test_the_composition_knows_no_family_of_vision_language_models() -> None:
    """Outside their folder only its table and the record are imported; to add one, at most eight files are touched."""
    folder = PACKAGE / "models/sa2va/families"
    names = "|".join(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "family", "table"))
    assert {"internvl", "qwen2_5_vl", "qwen3_vl"} <= set(names.split("|"))
    imports = re.compile(rf"^\s*(?:from|import) .*\bfamilies(?:\.| import )(?:{names})\b", re.MULTILINE)
    found = {path.name: path.parent for path in PACKAGE.rglob("*.py") if imports.search(path.read_text())}
    assert "table.py" in found
    assert set(found.values()) == {folder}
    row = next(
        line for line in DOCS.read_text().splitlines() if line.startswith("| a family of vision-language models")
    )
    assert row.count(",") + 2 <= 8  # the file, the line in the table, and the rest


def test_the_lowest_constraints_are_the_lower_ends_of_the_ranges() -> None:
    """Each pin is the first release of its range that has a wheel: 1.10.1 for >=1.10."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    ranges = dict(one.split(">=") for one in (*project["dependencies"], *extras["onnx"], *extras["parquet"]))
    lines = (PROJECT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins.keys() == ranges.keys()
    for name, pin in pins.items():
        lowest = ranges[name].split(".")
        assert pin.split(".")[: len(lowest)] == lowest, name
