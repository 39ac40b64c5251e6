"""Results of a long run, kept file by file so that it can be resumed, in a file that is gone when it is done."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from deixis.errors import DataError
from deixis.inference.outputs.cycle import NOT_AN_ENTRY, CycleLines

Result = TypeVar("Result")


class FileLines(Generic[Result]):
    """One line per finished file; a file that was changed since is done again.

    Lines that something else made (another model, threshold or list of names) are replaced. Damaged ones are skipped,
    with a warning: their files are done again, those of the lines behind them are not.

    Args:
        folder: the output folder.
        made_by: what determines results.
        name: of the file of lines.
        result: what a line's content stands for.

    Raises:
        DataError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, made_by: Mapping[str, Any], name: str, *, result: Callable[[Mapping[str, Any]], Result]
    ) -> None:
        self._lines = CycleLines(folder, made_by, name, replace=True)
        self._found: dict[str, Result] = {}
        damaged = []
        for number, entry in self._lines.numbered():
            try:
                content = entry or {}
                self._found[_key(Path(content["file"]), content["stamp"])] = result(content)
            except (DataError, *NOT_AN_ENTRY):
                damaged.append(number)
        if damaged:
            warnings.warn(
                f"{self._lines.path}: {len(damaged)} damaged lines, the first is line {damaged[0]}; their files are "
                "done again",
                stacklevel=3,
            )

    @property
    def count(self) -> int:
        """Files that are done."""
        return len(self._found)

    def get(self, file: Path) -> Result | None:
        """The result of a file as it is now; None if it is not done."""
        return self._found.get(_key(file, _stamp(file)))

    def done(self, files: Sequence[Path]) -> int:
        """How many of some files are done."""
        return sum(self.get(file) is not None for file in files)

    def add(self, file: Path, content: Mapping[str, Any], result: Result) -> None:
        """Keep a file's result.

        Raises:
            DataError: the line cannot be written.
        """
        stamp = _stamp(file)
        self._lines.append({"file": str(file), "stamp": stamp, **content})
        self._found[_key(file, stamp)] = result

    def remove(self) -> None:
        """Once all results are written."""
        self._lines.path.unlink(missing_ok=True)


def _stamp(file: Path) -> list[int]:
    """Size and time of change of a file."""
    try:
        status = file.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _key(file: Path, stamp: Sequence[int]) -> str:
    return f"{file} {list(stamp)}"
