"""Runs builders, damage and readers, each input in a process of its own, and counts what comes out."""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from shutil import rmtree
from typing import Any

from fuzz.damage import damage

MODULES = ("detection", "configs", "phrases", "clips", "models")  # those that are there are run
Builder = Callable[[Path, Random], Callable[[], object]]

MOST_MEMORY = 2 << 30  # more than the process has when it is forked
MOST_CPU_S, MOST_WALL_S = 20, 25
UNDAMAGED = 0.1


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
    seconds: float = 0.0
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


def fuzz(name: str, build: Builder, seed: int, number: int, count: Count) -> None:
    """One input: the same for the same name, seed and number."""
    random = Random(f"{name} {seed} {number}")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        read = build(folder, random)
        names = {folder.name} | {path.name for path in folder.rglob("*")}
        what = "as written" if random.random() < UNDAMAGED else damage(folder, random)
        started = time.monotonic()
        names |= {path.name for path in folder.rglob("*")}
        outcome, text, memory = in_child(read, names)
        _note(count, outcome, text, f"--reader {name} --seed {seed} --only {number}  ({what})")
        count.slowest_s = max(count.slowest_s, time.monotonic() - started)
        count.seconds += time.monotonic() - started
        count.peak_mb = max(count.peak_mb, memory / 1e6)
    finally:
        rmtree(folder, ignore_errors=True)


def _note(count: Count, outcome: str, text: str, again: str) -> None:
    count.inputs += 1
    if outcome in ("read", "refused"):
        setattr(count, outcome, getattr(count, outcome) + 1)
        return
    setattr(count, outcome, getattr(count, outcome) + 1)
    count.examples.setdefault(text, again)


def in_child(read: Callable[[], object], names: set[str]) -> tuple[str, str, float]:
    """Call a function in a forked process: (what happened, of what kind, bytes of memory it took beyond ours)."""
    receive, send = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _run(read, names, send)
    os.close(send)
    data, ended = b"", False
    late = time.monotonic() + MOST_WALL_S
    while not ended and select.select([receive], [], [], max(0.0, late - time.monotonic()))[0]:
        part = os.read(receive, 65_536)
        data, ended = data + part, not part
    if not ended:
        os.kill(child, signal.SIGKILL)
    os.close(receive)
    _, status = os.waitpid(child, 0)
    if data:
        outcome, text, memory = json.loads(data)
        return outcome, text, memory
    if not ended or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
        return "over_limits", "took too long", 0.0
    return "signals", f"status {status}", 0.0


def _run(read: Callable[[], object], names: set[str], send: int) -> None:
    """The child: never returns."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + MOST_MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    warnings.simplefilter("ignore")
    outcome, text = _outcome(read, names)
    memory = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
    os.write(send, json.dumps([outcome, text, memory]).encode())
    os._exit(0)


def _outcome(read: Callable[[], object], names: set[str]) -> tuple[str, str]:
    from deixis.errors import DeixisError

    try:
        read()
    except DeixisError as error:
        if isinstance(error.__cause__, MemoryError):
            return "over_limits", "took too much memory"
        named = any(name in str(error) for name in names)
        return ("refused", "") if named else ("tracebacks", f"names no file: {str(error)[:80]!r} {_place(error)}")
    except MemoryError as error:
        return "over_limits", f"took too much memory: {_place(error)}"
    except BaseException as error:
        return "tracebacks", f"{type(error).__name__}: {str(error)[:60]!r} {_place(error)}"
    return "read", ""


def _place(error: BaseException) -> str:
    """The last line of ours in a traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/deixis/" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside"


def rounds(
    names: list[str], seconds: float | None, each: int | None, count_of: dict[str, Count]
) -> Iterator[tuple[str, int]]:
    """(reader, number of its input), readers in turn, so that each gets its share of the time."""
    started = time.monotonic()
    number = 0
    while each is None or number < each:
        for name in names:
            if seconds is not None and time.monotonic() - started > seconds:
                return
            yield name, number
        number += 1


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
