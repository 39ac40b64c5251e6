"""A short run of the fuzzer, and that it catches what it looks for."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from fuzz.frame import Count, builders, fuzz, table

from deixis.errors import DataError

pytestmark = pytest.mark.slow  # hundreds of damaged files

BUILDERS = builders()


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_damaged_files_are_one_line_and_sound_ones_are_read(name: str) -> None:
    count = Count()
    fuzz(name, BUILDERS[name], 0, range(20), count)
    assert not count.faults, table({name: count})
    assert count.inputs == 20


@pytest.mark.parametrize("name", sorted(set(BUILDERS) - {"parquet odd", "refcoco pickle"}))
def test_what_a_builder_writes_is_read(name: str, tmp_path: Path) -> None:
    BUILDERS[name](tmp_path, Random(3))()


def _crash() -> None:
    ctypes.string_at(8)


def _fill() -> None:
    bytes(64 << 30)


def _traceback() -> None:
    raise KeyError("boxes")


def _nameless() -> None:
    raise DataError("something is wrong; correct it")


@pytest.mark.parametrize(
    ("act", "field"),
    [
        (_crash, "signals"),
        (os.abort, "signals"),
        (_fill, "over_limits"),
        (_traceback, "tracebacks"),
        (_nameless, "tracebacks"),
        (lambda: None, "read"),
    ],
)
def test_each_kind_of_fault_is_counted(act: Callable[[], None], field: str) -> None:
    def build(folder: Path, random: Random) -> Callable[[], object]:
        (folder / "a.txt").write_text("1")
        return act

    count = Count()
    fuzz("faulty", build, 0, range(3), count)
    assert getattr(count, field) == count.inputs == 3
    assert count.faults == (0 if field == "read" else 3)
