"""The boundary between a reader and its files: whatever a file causes becomes a `DataError` that names it."""

from __future__ import annotations

import os
import reprlib
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from deixis.errors import DataError, DeixisError

_MAX_REASON = 200
_Rest = ParamSpec("_Rest")
_Result = TypeVar("_Result")
_Reader = Callable[Concatenate[str | Path, _Rest], _Result]


@contextmanager
def reading(file: object, what: str = "annotations") -> Iterator[None]:
    """A block that reads a file from anywhere.

    Errors of deixis and warnings pass as they are. Any other exception is a fault that the file provoked in our code
    or in a library; it becomes a `DataError`, so that the user gets one line with the file's name. The cause stays
    attached, and `DEIXIS_DEBUG=1` lets it pass, to find a fault in the reader itself.

    Args:
        file: the path, or its name inside another file.
        what: what the file should hold, for the message.

    Raises:
        DataError: the path is a pipe or a device, or the block failed for another reason than a missing module or the
            keyboard.
    """
    if isinstance(file, Path):
        require_regular(file)
    try:
        yield
    except (DeixisError, Warning, ImportError):
        raise
    except Exception as error:
        if os.environ.get("DEIXIS_DEBUG") == "1":
            raise
        raise DataError(f"{file}: cannot be read as {what} ({reason(error)}); export or copy the file again") from error


def reads(what: str) -> Callable[[_Reader[_Rest, _Result]], _Reader[_Rest, _Result]]:
    """A reader, a function of a path and more, inside `reading`: what its files hold, for the message."""

    def bounded(reader: _Reader[_Rest, _Result]) -> _Reader[_Rest, _Result]:
        @wraps(reader)
        def read(path: str | Path, /, *rest: _Rest.args, **named: _Rest.kwargs) -> _Result:
            with reading(Path(path), what):
                return reader(path, *rest, **named)

        return read

    return bounded


def require_regular(path: Path) -> None:
    """Call it before a file is opened: reading a pipe waits, and a device never ends.

    Folders and missing files pass: opening them raises the right error.

    Raises:
        DataError: the path is a pipe, a device or a socket.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(f"{path}: is a pipe, a device or a socket and not a file; save its content to a file first")


def reason(error: BaseException) -> str:
    """An exception in one short line, as `KeyError: 'boxes'`."""
    text = " ".join(str(error).split())[:_MAX_REASON]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def shown(value: object) -> str:
    """A value from a file in a few words, however large, deep or often repeated its parts are."""
    return reprlib.repr(value)[:60]
