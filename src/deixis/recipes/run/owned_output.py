"""Results of a command go only where nothing of the user's is: what deixis wrote may be replaced, all else is refused.

A folder of results has a list of what was written into it, with the digest of every file that is written at once:
a file that was changed since is the user's. One command writes into a folder at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from deixis.atomic_files import write_atomic
from deixis.errors import DataError
from deixis.recipes.run.lock import run_lock

MANIFEST = ".deixis-output.json"
GROWING = ".jsonl"
"""Suffix of files that are resumed line by line, and that a user may mend: they have no digest."""


@runtime_checkable
class OutputOptions(Protocol):
    """Options of a command that writes a folder of results, or none where `output` is None."""

    @property
    def output(self) -> Path | None: ...
    def check(self) -> None: ...


Options = TypeVar("Options", bound=OutputOptions)
Result = TypeVar("Result")


def writes_output(*names: str) -> Callable[[Callable[[Options], Result]], Callable[[Options], Result]]:
    """For the function of a command that writes files and folders of these names into `options.output`.

    It checks the options first, for callers from Python too: the function itself need not.

    The function raises DataError where the folder holds one of them that deixis did not write, and TrainingError where
    another process is writing there.
    """

    def decorate(command: Callable[[Options], Result]) -> Callable[[Options], Result]:
        @wraps(command)
        def run(options: Options) -> Result:
            options.check()
            if options.output is None:
                return command(options)
            with owned_output(options.output, names):
                return command(options)

        return run

    return decorate


@contextmanager
def owned_output(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Hold a folder while results of these names are written into it; see the module.

    Raises:
        DataError: it holds one of them that deixis did not write, or that was changed since.
        TrainingError: another process is writing there, or it cannot be written.
    """
    with run_lock(folder):
        written = _read_manifest(folder)
        strange = [name for name in names if not _may_be_replaced(folder, name, written, names)]
        if strange:
            raise DataError(
                f"{folder}: holds {', '.join(strange)}, which deixis did not write, or which was changed since; "
                "choose another --output, or move it away"
            )
        # Before anything is written: after a crash these names, without a digest yet, may be replaced.
        _write_manifest(folder, {**written, **dict.fromkeys(names)})
        try:
            yield
        finally:
            there = [name for name in names if (folder / name).exists()]
            kept = {name: digest for name, digest in written.items() if name not in names}
            with suppress(OSError, DataError):  # a full disk has been reported by then
                _write_manifest(folder, {**kept, **{name: _digest(folder / name) for name in there}})


def require_own_file(path: Path, is_ours: Callable[[str], bool]) -> None:
    """Raises DataError where a file exists whose text is not one that the command writes."""
    if not path.exists() and not path.is_symlink():
        return
    try:
        ours = is_ours(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        ours = False
    if not ours:
        raise DataError(f"{path}: exists and is not of this command; choose another --output, or move it away")


def _may_be_replaced(folder: Path, name: str, written: Mapping[str, Any], names: Sequence[str]) -> bool:
    path = folder / name
    if path.is_symlink():
        return False
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return True
    if name in written:
        return written[name] is None or written[name] == _digest(path)
    # a folder from before there were lists
    return not written and any(_is_resumable(folder / other) for other in names)


def _is_resumable(path: Path) -> bool:
    """Whether a file of lines says what made them: older versions kept no list of what they wrote."""
    if not path.name.endswith(GROWING):
        return False
    try:
        with path.open(encoding="utf-8") as file:
            return "made_by" in dict(json.loads(file.readline()))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _digest(path: Path) -> str | None:
    if path.is_dir() or path.name.endswith(GROWING):
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        written = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["written"]
        return dict(written)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _write_manifest(folder: Path, written: Mapping[str, Any]) -> None:
    if written:
        write_atomic(folder / MANIFEST, json.dumps({"written": written}, indent=1) + "\n")
    else:
        (folder / MANIFEST).unlink(missing_ok=True)
