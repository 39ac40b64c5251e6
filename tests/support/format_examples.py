"""A small sound set of each format: from its writer, or where it is only read from `example` of the format's own test.

`tests/unit/data/formats/test_readers_NAME.py` of a new format has `RECOGNISED`, the files by which a folder is known
(by case, whose first word is the format; "by its folder" where no file tells alone), and where nothing is written
`example(folder)`, which makes a set with the names of `small_set`.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from fuzz.detection import small_set

from deixis.data.formats.table import FORMATS
from deixis.data.formats.writing import write_dataset

_TESTS = Path(__file__).parents[1] / "unit" / "data" / "formats"


def write_example(format: str, folder: Path) -> Path:
    """A set of the format in a new folder; its main annotation file, the last of several."""
    if FORMATS[format].writes:
        write_dataset(small_set(Random(1)), folder, format)
    else:
        folder.mkdir(parents=True)
        own_test(format).example(folder)
    found = FORMATS[format].find(folder)
    assert found, sorted(folder.rglob("*"))
    return found[-1]


def recognised(format: str) -> dict[str, dict[str, Any]]:
    """The files by which a folder is known for a format, from the format's own test."""
    if not (_TESTS / f"test_readers_{format}.py").is_file():
        return {}
    return dict(getattr(own_test(format), "RECOGNISED", {}))


@cache
def own_test(format: str) -> ModuleType:
    """The module of a format's own test."""
    spec = importlib.util.spec_from_file_location(f"own_test_of_{format}", _TESTS / f"test_readers_{format}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
