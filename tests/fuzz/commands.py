"""Builders for the commands that read any annotations and write others, and for the writers behind them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from random import Random

from deixis.cli.main import run
from deixis.data.findings import Findings
from deixis.data.formats import read_dataset
from deixis.data.formats.table import WRITTEN
from deixis.data.formats.writing import write_dataset
from deixis.recipes.data import check, convert, diff, merge  # noqa: F401  # here, so that no child imports torch
from fuzz.detection import small_set

_Read = Callable[[], object]


def _set(folder: Path, random: Random, name: str = "set") -> tuple[Path, str]:
    """A small set of some format, and what to give to a command."""
    format = random.choice(list(WRITTEN))
    written = write_dataset(small_set(random), folder / name, format, masks=random.random() < 0.8)
    return folder / name, str(written if random.random() < 0.5 else folder / name)


def _quietly(words: list[str]) -> None:
    """A command without what it prints; reports of faults and exit codes other than 0 are no fault of its own."""
    with redirect_stdout(StringIO()):
        run(words)


def _check(folder: Path, random: Random) -> _Read:
    _, place = _set(folder, random)
    words = ["data", "check", "--data", place, "--num-workers", "0"]
    words += ["--fix", str(folder / "fixed")] if random.random() < 0.6 else ["--json"]
    words += ["--to", random.choice(list(WRITTEN))] if random.random() < 0.3 else []
    words += random.choice([[], [], ["--min-area", "5"], ["--sample", "2"]])
    return partial(_quietly, words)


def _convert(folder: Path, random: Random) -> _Read:
    _, place = _set(folder, random)
    words = ["data", "convert", "--data", place, "--to", random.choice(list(WRITTEN))]
    words += ["--dry-run"] if random.random() < 0.2 else ["--output", str(folder / "out")]
    words += random.choice([[], [], ["--min-area", "5"], ["--sample", "2"], ["--no-masks"], ["--image-files", "link"]])
    return partial(_quietly, words)


def _writer(folder: Path, random: Random) -> _Read:
    """What can be read of a damaged set, in any other format."""
    _, place = _set(folder, random)
    format, masks = random.choice(list(WRITTEN)), random.random() < 0.7

    def read_and_write() -> None:
        dataset = read_dataset(place, findings=Findings())
        if len(dataset):
            write_dataset(dataset, folder / "out", format, masks=masks)

    return read_and_write


def _two(command: str, folder: Path, random: Random) -> _Read:
    places = [_set(folder, random, name)[1] for name in ("one", "two")]
    words = {"merge": ["--names", "merge", "--num-workers", "0"], "diff": []}[command]
    return partial(_quietly, ["data", command, *places, "--output", str(folder / "out.html"), *words])


BUILDERS: dict[str, Callable[[Path, Random], _Read]] = {
    "data check": _check,
    "data convert": _convert,
    "data merge": partial(_two, "merge"),
    "data diff": partial(_two, "diff"),
    "writers": _writer,
}
