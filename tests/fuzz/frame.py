"""Runs builders, damage and readers, in processes that may die of it, and counts what comes out."""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from shutil import rmtree
from typing import Any

from deixis.errors import DeixisError
from fuzz.damage import damage

MODULES = ("detection", "configs", "phrases", "clips", "models", "commands")  # those that are there are run
Builder = Callable[[Path, Random], Callable[[], object]]

MOST_MEMORY = 2 << 30  # more than the process has when it is forked
MOST_CPU_S, MOST_WALL_S = 20, 25
UNDAMAGED = 0.1
_AT_ONCE = 50  # inputs that one child reads, unless one of them ends it


@dataclass
class Count:
    """What happened to one reader's inputs."""

    inputs: int = 0
    read: int = 0
    refused: int = 0
    tracebacks: int = 0
    signals: int = 0
    over_limits: int = 0
    slowest_s: float = 0.0
    peak_mb: float = 0.0
    examples: dict[str, str] = field(default_factory=dict)  # what went wrong, to how to see it again

    @property
    def faults(self) -> int:
        return self.tracebacks + self.signals + self.over_limits


def builders() -> dict[str, Builder]:
    """All builders by name."""
    found: dict[str, Builder] = {}
    for name in MODULES:
        if importlib.util.find_spec(f"fuzz.{name}") is not None:
            found |= import_module(f"fuzz.{name}").BUILDERS
    return found


def fuzz(name: str, build: Builder, seed: int, numbers: Sequence[int], count: Count) -> None:
    """Some inputs, each the same for the same name, seed and number. A child reads them until one of them ends it."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        left = list(numbers)
        while left:
            left = _in_child(name, build, seed, left, folder, count)
    finally:
        rmtree(folder, ignore_errors=True)


def _in_child(
    name: str, build: Builder, seed: int, numbers: Sequence[int], folder: Path, count: Count
) -> Sequence[int]:
    """Fork, and count what the child reports, a line before each input and one after it; the numbers that are left."""
    receive, send = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _run(name, build, seed, numbers, folder, send)
    os.close(send)
    data, started, done = b"", "", 0
    while select.select([receive], [], [], MOST_WALL_S)[0]:
        part = os.read(receive, 65_536)
        if not part:
            break
        *lines, data = (data + part).split(b"\n")
        for line in lines:
            report = json.loads(line)
            if isinstance(report, str):
                started = report
            else:
                _note(count, *report, started)
                done += 1
    else:
        os.kill(child, signal.SIGKILL)
    os.close(receive)
    _, status = os.waitpid(child, 0)
    if done < len(numbers):  # the child did not come to its end
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        outcome, text = ("over_limits", "took too long") if late else ("signals", f"status {status}")
        _note(count, outcome, text, 0.0, 0.0, started or f"--reader {name!r} --seed {seed} --only {numbers[0]}")
        done += 1
    return numbers[done:]


def _note(count: Count, outcome: str, text: str, seconds: float, memory_mb: float, again: str) -> None:
    count.inputs += 1
    setattr(count, outcome, getattr(count, outcome) + 1)
    count.slowest_s, count.peak_mb = max(count.slowest_s, seconds), max(count.peak_mb, memory_mb)
    if outcome not in ("read", "refused"):
        count.examples.setdefault(text, again)


def _run(name: str, build: Builder, seed: int, numbers: Sequence[int], folder: Path, send: int) -> None:
    """The child: never returns."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + MOST_MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    warnings.simplefilter("ignore")
    try:
        for number in numbers:
            _one(name, build, seed, number, folder / str(number), send, before)
    finally:
        os._exit(0)


def _one(name: str, build: Builder, seed: int, number: int, folder: Path, send: int, before: int) -> None:
    """Write, damage and read one input, and report it."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + MOST_CPU_S, resource.RLIM_INFINITY))
    random = Random(f"{name} {seed} {number}")
    folder.mkdir()
    read = build(folder, random)
    names = {folder.parent.name} | {path.name for path in folder.rglob("*")}
    what = "as written" if random.random() < UNDAMAGED else damage(folder, random)
    names |= {path.name for path in folder.rglob("*")} | {"/dev/zero"}  # which damaged text may name
    _send(send, f"--reader {name!r} --seed {seed} --only {number}  ({what})")
    started = time.monotonic()
    outcome, text = _outcome(read, names)
    memory_mb = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    _send(send, [outcome, text, time.monotonic() - started, memory_mb])
    rmtree(folder, ignore_errors=True)


def _send(send: int, report: object) -> None:
    os.write(send, json.dumps(report).encode() + b"\n")


def _outcome(read: Callable[[], object], names: set[str]) -> tuple[str, str]:
    try:
        read()
    except BaseException as error:
        return _judged(_own(error), names)
    return "read", ""


def _judged(error: BaseException, names: set[str]) -> tuple[str, str]:
    """What an exception counts as, and in words that are the same for the same fault."""
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return "over_limits", f"took too much memory: {_place(error)}"
    if not isinstance(error, DeixisError):
        return "tracebacks", f"{type(error).__name__}: {str(error)[:60]!r} {_place(error)}"
    if not any(name in str(error) for name in names):
        return "tracebacks", f"names no file: {str(error)[:80]!r} {_place(error)}"
    return "refused", ""


def _own(error: BaseException) -> BaseException:
    """The error of deixis in the place of one of the tests' type checks, which look at properties that read files."""
    if type(error).__name__ != "TypeCheckError":
        return error
    cause = error.__cause__
    while cause is not None and not isinstance(cause, DeixisError):
        cause = cause.__cause__
    return cause or error


def _place(error: BaseException) -> str:
    """The last line of ours in a traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/deixis/" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside"


def rounds(names: Sequence[str], seconds: float | None, each: int | None) -> Iterator[tuple[str, range]]:
    """(reader, numbers of its inputs), readers in turn, so that each gets its share."""
    started = time.monotonic()
    for first in range(0, sys.maxsize if each is None else each, _AT_ONCE):
        for name in names:
            if seconds is not None and time.monotonic() - started > seconds:
                return
            yield name, range(first, first + _AT_ONCE if each is None else min(first + _AT_ONCE, each))


def table(counts: dict[str, Count]) -> str:
    """The counts as text."""
    columns = ("inputs", "read", "refused", "tracebacks", "signals", "over limits", "slowest s", "peak MB")
    lines = [f"{'reader':<16}" + "".join(f"{column:>12}" for column in columns)]
    total = Count()
    for name, count in [*counts.items(), ("all", total)]:
        cells: list[Any] = [count.inputs, count.read, count.refused, count.tracebacks, count.signals, count.over_limits]
        text = "".join(f"{cell:>12}" for cell in cells)
        lines.append(f"{name:<16}{text}{count.slowest_s:>12.2f}{count.peak_mb:>12.0f}")
        for key in ("inputs", "read", "refused", "tracebacks", "signals", "over_limits"):
            setattr(total, key, getattr(total, key) + getattr(count, key))
        total.slowest_s, total.peak_mb = max(total.slowest_s, count.slowest_s), max(total.peak_mb, count.peak_mb)
    for name, count in counts.items():
        lines += [f"{name}: {text}\n    {again}" for text, again in count.examples.items()]
    return "\n".join(lines)
