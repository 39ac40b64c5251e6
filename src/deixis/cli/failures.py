"""Failures of the machine, not of deixis: no memory, no disk, a lost process; each as one line that says what helps."""

from __future__ import annotations

import errno

from deixis.errors import Terminated

MEMORY_HELP = {
    "train": (
        "in this order: a smaller --batch-size with more --gradient-accumulation-steps, --gradient-checkpointing, "
        "{size}--precision bf16, --lora, fewer --num-workers"
    ),
    "other": "a smaller --batch-size, smaller images, or --device cpu where the GPU is full",
}
MAX_SHOWN = 80  # characters of a path that is too long
_MEMORY_SIGNS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "bad allocation",
    "std::bad_alloc",
    "failed to allocate",
)


def system_failure(error: BaseException, command: list[str]) -> str | None:
    """The message for a failure of the machine; None for any other error."""
    for cause in _chain(error):
        if _is_out_of_memory(cause):
            return f"out of memory ({_first_line(cause)}); {_memory_help(command)}"
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            place = f"{cause.filename}: " if cause.filename else ""
            resumed = ", then --resume" if command[1:2] == ["train"] else ""
            return f"{place}the disk is full ({cause.strerror}); free some space, or choose another --output{resumed}"
        if isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG and cause.filename:
            name = str(cause.filename)
            return f"{name[:MAX_SHOWN]} …: a path of {len(name):,} characters is too long; correct it"
        if "DataLoader worker" in str(cause) and isinstance(cause, RuntimeError):
            return (
                f"a data loading worker died, often because memory ran out ({_first_line(cause)}); "
                "use fewer --num-workers or a smaller --batch-size"
            )
    return None


def was_stopped(error: BaseException) -> bool:
    """Whether an error came up while a run that SIGTERM stopped ended: its loading workers, stopped too, are missed."""
    return "DataLoader worker" in str(error) and any(isinstance(cause, Terminated) for cause in _chain(error))


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _MEMORY_SIGNS)


def _memory_help(command: list[str]) -> str:
    if command[1:2] != ["train"]:
        return f"use {MEMORY_HELP['other']}"
    size = "a smaller --image-size, " if command[0] == "detect" else "fewer --max-tiles, "
    return f"use, {MEMORY_HELP['train'].format(size=size)}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
