"""Results of a long run, kept file by file so that it can be resumed, in a file that is gone when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from deixis.errors import DataError
from deixis.inference.outputs.cycle import CycleLines

Result = TypeVar("Result")


class FileLines(Generic[Result]):
    """One line per finished file; a file that was changed since is done again.

    Lines that something else made (another model, threshold or list of names) are replaced.

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
        try:
            self._lines = CycleLines(folder, made_by, name)
        # Lines made by something else, which go, or a folder that cannot be written: then this fails again.
        except DataError:
            (folder / name).unlink(missing_ok=True)
            self._lines = CycleLines(folder, made_by, name)
        self._found: dict[str, Result] = {}
        with suppress(DataError, KeyError, TypeError, ValueError):  # from a damaged line on, files are done again
            for entry in self._lines.entries():
                self._found[_key(Path(entry["file"]), entry["stamp"])] = result(entry)

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
