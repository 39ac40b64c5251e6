"""Pickles of plain data only: a pickle can run any program, this reader builds lists, dictionaries, texts, numbers."""

from __future__ import annotations

import pickle
import pickletools
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

from deixis.data.reading import require_regular
from deixis.errors import DataError
from deixis.text import one_line

MAX_TUPLES = 20_000  # each may hold the one before; looking one up as a key takes stack for each
_BY_CODE = {ord(op.code): op for op in pickletools.opcodes}
_TUPLES = frozenset(code for code, op in _BY_CODE.items() if op.name.startswith("TUPLE") or op.name == "FROZENSET")
_MEMOS = {ord("p"): -1, ord("q"): 1, ord("r"): 4}  # PUT, BINPUT, LONG_BINPUT: bytes of their number, -1: a line
_LINES = {code: 1 for code, op in _BY_CODE.items() if op.arg is not None and op.arg.n == pickletools.UP_TO_NEWLINE}
_LINES |= {ord("c"): 2, ord("i"): 2}  # GLOBAL and INST have two lines
_COUNTED = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_LENGTHS = {code: _COUNTED[op.arg.n] for code, op in _BY_CODE.items() if op.arg is not None and op.arg.n in _COUNTED}
_STOP = ord(".")
# bytes to the next opcode, for those that need no look
_STEPS = [-1] * 256
for _code, _op in _BY_CODE.items():
    if _code not in _TUPLES and _code not in _MEMOS and _code not in _LENGTHS and _code not in _LINES:
        _STEPS[_code] = _op.arg.n if _op.arg is not None else 0
_STEPS[_STOP] = -1


def fault_of_pickle(data: bytes) -> str | None:
    """Why a pickle may not be carried out: lengths or numbers beyond its own size, or too many tuples. Else None.

    Opcodes that do not exist, and an end in the middle, are left to the unpickler, which names them.
    """
    at = tuples = 0
    size = len(data)
    while at < size:
        code = data[at]
        at += 1
        step = _STEPS[code]
        if step >= 0:
            at += step
        elif code in _MEMOS:
            at, number = _memo(data, at, _MEMOS[code])
            if number is None or number > at:
                return "a memo number beyond its own size"
        elif code in _TUPLES:
            tuples += 1
            if tuples > MAX_TUPLES:
                return f"more than {MAX_TUPLES} tuples"
        elif code in _LENGTHS:
            width = _LENGTHS[code]
            length = int.from_bytes(data[at : at + width], "little")
            at += width + length
            if at > size:
                return f"a value of {length} bytes, more than the file has"
        elif code in _LINES:
            for _ in range(_LINES[code]):
                at = data.find(b"\n", at) + 1 or size  # without a line end: to the end of the data
        else:
            return None
    return None


def _memo(data: bytes, at: int, width: int) -> tuple[int, int | None]:
    """Where the next opcode stands, and the number of a memo."""
    if width > 0:
        return at + width, int.from_bytes(data[at : at + width], "little")
    end = data.find(b"\n", at)
    digits = data[at:end] if end >= 0 else b""
    # Longer numbers are beyond any file, and `int` of a very long text takes long.
    return end + 1 or len(data), int(digits) if digits.isdigit() and len(digits) < 20 else None


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
