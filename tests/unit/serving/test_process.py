"""A real server process that is told to stop while it works: what it began is there afterwards, or begins again."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_runs import start

pytest.importorskip("fastapi", reason="serving is an extra; pip install 'deixis[serve]'")

IMAGES = 40


class Process:
    """`deixis serve` on a free port."""

    def __init__(self, *flags: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        port = ("--no-playground", "--port", str(self.port))
        self.process = start(["serve", "--detector", "builtin", *port, *flags])
        while True:
            try:
                self.ask("/ready")
                break
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, self.process.communicate()
                time.sleep(0.1)

    def ask(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=60) as answer:
            return bytes(answer.read())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(120)
        assert self.process.returncode in (0, 143, -signal.SIGTERM)
        assert "Traceback" not in err


@contextmanager
def serving(*flags: str) -> Iterator[Process]:
    one = Process(*flags)
    try:
        yield one
    finally:
        one.process.kill()


@pytest.mark.slow
def test_a_job_that_runs_when_the_server_is_stopped_ends_or_begins_again(tmp_path: Path) -> None:
    photos, jobs = tmp_path / "photos", tmp_path / "jobs"
    photos.mkdir()
    for number in range(IMAGES):
        Image.new("RGB", (160, 120), (number, 60, 30)).save(photos / f"{number:02}.png")
    flags = ("--folders", str(photos), "--jobs-folder", str(jobs), "--max-batch", "1")
    asked = {"task": "detect", "path": "photos", "names": ["circle"]}

    def begun(server: Process) -> str:
        job = json.loads(server.ask("/v1/jobs", asked))["id"]
        while json.loads(server.ask(f"/v1/jobs/{job}"))["done"] < 1:
            pass
        return str(job)

    def record(job: str) -> dict[str, Any]:
        return dict(json.loads((jobs / job / "job.json").read_text()))

    with serving(*flags) as server:
        first = begun(server)
        server.stop()
    assert (record(first)["state"], record(first)["done"]) == ("done", IMAGES), "it had time to end"
    assert len((jobs / first / "result.jsonl").read_text().splitlines()) == IMAGES
    with serving(*flags, "--finish", "0") as server:
        second = begun(server)
        server.stop()
    assert record(second)["state"] in ("waiting", "done"), "it had none"
    with serving(*flags) as server:
        while json.loads(server.ask(f"/v1/jobs/{second}"))["state"] != "done":
            pass
        assert len(server.ask(f"/v1/jobs/{second}/result").splitlines()) == IMAGES
        assert json.loads(server.ask(f"/v1/jobs/{first}"))["done"] == IMAGES, "of two servers before"
        server.stop()
