"""The server under twice the load that it can bear: is any request lost, does its memory grow, how long do answers
take; and what batches of several clients' requests are worth against one by one.

python benchmarks/bench_serve.py --write
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import psutil
from harness import table, write_result
from PIL import Image

from deixis.data.pixels.images import load
from deixis.data.scenes.from_text import read_scenes

CLIENTS = 8
NAMES = ["red circle", "blue square", "green triangle"]
ROUND_S = 6.0
GIVEN_UP_S = 120.0  # a client waits no longer: what then has no answer is lost


@dataclass
class Answers:
    """What came back: seconds of each answer by status, and the 503 that did not say when to come again."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)

    def took(self, status: int, seconds: float) -> None:
        """One more answer."""
        self.seconds.setdefault(status, []).append(seconds)

    def percentile(self, status: int, share: float) -> str:
        """Milliseconds, or a dash where there was no such answer."""
        found = self.seconds.get(status)
        return f"{1000 * float(np.percentile(found, 100 * share)):,.0f}" if found else "-"

    def count(self, status: int) -> int:
        """Answers of a status."""
        return len(self.seconds.get(status, ()))


def request() -> bytes:
    """A question about a generated picture, whole."""
    pixels = np.asarray(load(read_scenes("scenes:split=demo_train,count=1,seed=5")[0]).image)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    asked = {"image": base64.b64encode(file.getvalue()).decode(), "names": NAMES}
    body = json.dumps(asked).encode()
    head = f"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


@contextmanager
def server(*flags: str) -> Iterator[tuple[int, psutil.Process]]:
    """A process of `deixis serve` that is ready: its port, and itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "deixis", "serve", "--detector", "builtin", "--port", str(port), *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while asyncio.run(_ask(port, b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))[0] != 200:
            time.sleep(0.2)
        yield port, psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    finally:
        process.kill()


async def _ask(port: int, content: bytes) -> tuple[int, bytes]:
    """The status of an answer, and its head; 0 where there is none."""
    try:
        async with asyncio.timeout(GIVEN_UP_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(content)
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError) as error:
        return 0, type(error).__name__.encode()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0
    if status == 200 and content.startswith(b"POST"):
        json.loads(body)  # whole
    return status, head


async def _asked(port: int, content: bytes, answers: Answers) -> None:
    begun = time.perf_counter()
    status, head = await _ask(port, content)
    answers.took(status, time.perf_counter() - begun)
    if status == 503 and b"retry-after" not in head.lower():
        answers.lost["503 without Retry-After"] += 1
    elif status not in (200, 503):
        answers.lost[f"status {status}" if status else head.decode()] += 1


async def as_fast_as_answered(port: int, content: bytes, seconds: float, at_once: int) -> float:
    """Requests per second that are answered, where so many are always open."""
    answers, until = Answers(), time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < until:
            await _asked(port, content, answers)

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_once)))
    return answers.count(200) / (time.perf_counter() - begun)


async def at_a_rate(
    port: int, content: bytes, seconds: float, rate: float, process: psutil.Process
) -> tuple[Answers, list[float]]:
    """Clients that send at a rate together, whether or not they have been answered; and the server's memory, MB."""
    answers, memory, open_requests = Answers(), [], set()
    begun = time.perf_counter()

    async def client(number: int) -> None:
        for turn in range(round(seconds * rate / CLIENTS)):
            due = begun + (turn + number / CLIENTS) * CLIENTS / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(_asked(port, content, answers))
            open_requests.add(task)
            task.add_done_callback(open_requests.discard)

    async def watched() -> None:
        while True:
            memory.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(1)

    watching = asyncio.create_task(watched())
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    while open_requests:
        await asyncio.gather(*open_requests)
    watching.cancel()
    return answers, memory


def batched_and_single(content: bytes, rounds: int, round_s: float) -> list[float]:
    """Answers per second of a server that batches over those of one that does not, in each round."""
    ratios = []
    with server() as (batched, _), server("--max-batch", "1") as (single, _):
        for _ in range(-1, rounds):  # the first warms up
            rates = [asyncio.run(as_fast_as_answered(port, content, round_s, CLIENTS)) for port in (batched, single)]
            ratios.append(rates[0] / rates[1])
            print("answers/s, batched and one by one:", *(f"{rate:.1f}" for rate in rates), flush=True)
    return ratios[1:]


def overloaded(content: bytes, seconds: float, round_s: float) -> tuple[float, Answers, list[float]]:
    """What a server can do per second, and what becomes of twice as many requests, with its memory each second."""
    with server() as (port, process):
        asyncio.run(as_fast_as_answered(port, content, round_s, CLIENTS))
        rate = asyncio.run(as_fast_as_answered(port, content, 2 * round_s, CLIENTS))
        return rate, *asyncio.run(at_a_rate(port, content, seconds, 2 * rate, process))


def described(seconds: float, rate: float, answers: Answers, memory: list[float]) -> list[list[str]]:
    """The table's rows."""
    settled = memory[len(memory) // 4 :]  # every buffer has been filled once
    quarter = max(len(settled) // 4, 1)
    first, last = statistics.median(settled[:quarter]), statistics.median(settled[-quarter:])
    again = answers.count(503) - answers.lost["503 without Retry-After"]
    return [
        ["what it can do, answers per second", f"{rate:.1f}"],
        [f"asked for by {CLIENTS} clients for {seconds:.0f} s, per second", f"{2 * rate:.1f}"],
        ["requests sent", f"{sum(map(len, answers.seconds.values())):,}"],
        ["answered (200)", f"{answers.count(200):,}"],
        ["told to come again (503 with Retry-After)", f"{again:,}"],
        ["lost: any other end", f"{answers.lost.total():,} {dict(+answers.lost) or ''}".strip()],
        ["time to an answer, p50, ms", answers.percentile(200, 0.5)],
        ["time to an answer, p99, ms", answers.percentile(200, 0.99)],
        ["time to a 503, p50, ms", answers.percentile(503, 0.5)],
        ["memory of the server after a quarter, MB", f"{first:.1f}"],
        ["at the end, MB", f"{last:.1f}"],
        ["grown, MB", f"{last - first:+.1f}"],
        ["peak, MB", f"{max(memory):.1f}"],
    ]


def main() -> None:
    """Measure what the server can do, then ask for twice that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the load (default 60)")
    parser.add_argument("--rounds", type=int, default=5, help="of batched against one by one (default 5)")
    parser.add_argument("--round-seconds", type=float, default=ROUND_S, help=f"of a round (default {ROUND_S:g})")
    given = parser.parse_args()
    content, busy = request(), os.getloadavg()[0]
    ratios = batched_and_single(content, given.rounds, given.round_seconds)
    rate, answers, memory = overloaded(content, given.seconds, given.round_seconds)
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    rows = described(given.seconds, rate, answers, memory)
    rows.append([f"batched against one by one, {CLIENTS} requests always open", spread])
    others = ": others were at work, so that figures per second are low" if busy > 0.5 else ""
    body = table(["what", "measured"], rows) + (
        f"\n\n`deixis serve --detector builtin` with its own settings, asked by one other process about a picture of a "
        f"generated scene and {len(NAMES)} names. Batched: up to 8 per batch, against `--max-batch 1`, in turn, "
        f"{given.rounds} rounds of {given.round_seconds:g} s each; answers per second as a ratio, its median "
        "and range. The clients "
        f"take a part of the same processor. Load average when it began: {busy:.1f}{others}."
    )
    print(body)
    if given.write:
        write_result("serve", "The server at twice what it can do", body)
    if answers.lost.total():
        sys.exit("requests were lost")


if __name__ == "__main__":
    main()
