"""Shared by the benchmarks: interleaved timing of rivals, the hardware's name, and result files.

A result file is `results/<what>_<hardware>_<date>.md`, so that figures of two machines never mix.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import gc
import os
import platform
import re
import resource
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)

    def __str__(self) -> str:
        """Median in milliseconds, and the range."""
        return f"{self.median * 1e3:.2f} ({self.best * 1e3:.2f} to {max(self.seconds) * 1e3:.2f})"


def ratios(slow: Timing, fast: Timing) -> str:
    """How many times faster, median and range over the rounds: both ran in each round, one after the other."""
    each = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return f"{statistics.median(each):.1f} ({min(each):.1f} to {max(each):.1f})"


def time_interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1, settle: int = 0
) -> dict[str, Timing]:
    """Times every run once a round, for `rounds` rounds, so that a busy moment of the machine hits all alike.

    Args:
        warmup: rounds before the first timed one.
        settle: untimed calls before each timed one: who runs again and again finds memory as he left it, not as the
            other did, whose larger blocks went back to the system.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_index in range(-warmup, rounds):
        for name, run in runs.items():
            for _ in range(settle):
                run()
            _wait_for_device()
            start = time.perf_counter()
            run()
            _wait_for_device()
            if round_index >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_resident_mib(step: Callable[[], None]) -> float:
    """MiB of resident memory that a call takes at its peak, looked at every two milliseconds.

    What the calls before have freed goes back to the system first, where the C library can: kept for reuse, it would be
    resident before and after, and a part of the peak would not be seen.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    pages, stop = [_resident_pages()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            pages.append(_resident_pages())

    watcher = threading.Thread(target=watch)
    watcher.start()
    step()
    stop.set()
    watcher.join()
    return (max(pages) - pages[0]) * resource.getpagesize() / 2**20


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])


def hardware(device: str = "cpu") -> str:
    """A short name for file names: the graphics card's, or the processor's with its number of cores."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        name = f"{_processor()} {cores} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return re.sub(r"\((R|TM)\)|@.*|\b(CPU|Processor)\b", "", name)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_result(what: str, title: str, body: str, device: str = "cpu") -> Path:
    """Writes `results/<what>_<hardware>_<date>.md`, naming versions and threads; replaces one of the same day."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = RESULTS / f"{what}_{hardware(device)}_{today}.md"
    load = f", load average at the end {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    setting = f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads{load}."
    RESULTS.mkdir(exist_ok=True)
    path.write_text(f"# {title}\n\n{hardware(device)}, {today}. {setting}\n\n{body}\n", encoding="utf-8")
    return path


def fewer(source: str, most: int | None) -> str:
    """Generated scenes, `scenes:split=...,count=...`, or at most so many of them.

    >>> fewer("scenes:split=demo_val,count=60,seed=2", 4)
    'scenes:split=demo_val,count=4,seed=2'
    """
    return re.sub(r"(?<=count=)\d+", lambda found: str(min(int(found[0]), most or int(found[0]))), source)


def write_random_segmenter(folder: Path) -> Path:
    """A small segmenter with random weights that knows the words of generated scenes; its folder."""
    # Not at the top: processes that measure memory import this file, and all of transformers would come with it.
    from deixis.data.refer.conversation import conversation_words
    from deixis.data.scenes.phrases import phrase_words
    from deixis.models.sa2va import save_sa2va
    from deixis.models.sa2va.small import small_segmenter

    torch.manual_seed(0)
    save_sa2va(small_segmenter((*phrase_words(), *conversation_words()), memory=True), folder)
    return folder
