"""Pickles of plain data only: a pickle can run any program, this reader builds lists, dictionaries, texts, numbers."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

from deixis.data.reading import require_regular
from deixis.data.refer_formats.pickle_scan import fault_of_pickle
from deixis.errors import DataError
from deixis.text import one_line

# What unpickling damaged or foreign bytes raises.
_DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _RefusedError(Exception):
    """The pickle names something to be imported."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        """Every import of a pickle comes through here, and so everything it could call."""
        raise _RefusedError(f"{module}.{name}")


def load_plain_pickle(path: Path) -> Any:
    """The content of a pickle of lists, tuples, sets, dictionaries, texts, bytes, numbers and None; Python 2's too.

    A pickle may hold one list in many places, so that a few bytes are a value without end: whoever shows one in a
    message uses `reading.shown`.

    Raises:
        DataError: the file is missing or damaged, or asks for anything else, which is refused before it is run.
    """
    require_regular(path)
    try:
        content = path.read_bytes()
        fault = fault_of_pickle(content)
        if fault is not None:
            raise DataError(f"{path}: is no pickle, or a damaged one (it has {fault}); get it again")
        return _PlainUnpickler(BytesIO(content), encoding="utf-8").load()  # texts that Python 2 wrote are bytes
    except _RefusedError as error:
        raise DataError(
            f"{path}: this pickle asks to import {error}; only plain data is read, and nothing of it was run: "
            f"get the file from a place you trust"
        ) from None
    except FileNotFoundError as error:
        raise DataError(f"{path}: annotation file not found; check the path") from error
    except OSError as error:
        raise DataError(f"{path}: cannot read ({error.strerror}); check the path and its permissions") from error
    except _DAMAGE as error:
        raise DataError(f"{path}: is no pickle, or a damaged one ({one_line(error)}); get it again") from error
