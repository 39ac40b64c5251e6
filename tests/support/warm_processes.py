"""Programs in processes of their own that need not import torch first: forked from one process that has.

Importing what a run imports takes 5 to 8 processor seconds, which is most of what a short run takes. `start` is
`subprocess.Popen` for `python ARGUMENTS`, and `run_together` what `torchrun` does on one machine, without an agent.
The process that is forked is started once by each process of tests, has no threads and draws no random numbers.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

IMPORTED = (
    *("deixis.recipes.detect.train", "deixis.recipes.refer.train", "deixis.recipes.refer.cycle"),
    *("deixis.training.sharding", "torch.distributed.checkpoint", "deixis.serving.app"),
)


class WarmProcess:
    """A forked program: what tests use of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], new_session: bool) -> None:
        self.returncode: int | None = None
        self._output = tempfile.TemporaryDirectory()
        names = [f"{self._output.name}/{name}" for name in ("out", "err")]
        where = {"words": list(arguments), "environment": dict(environment), "cwd": str(Path.cwd())}
        self.pid: int = _ask({**where, "output": names, "new_session": new_session})

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _ask({"ended": self.pid})
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; it is killed where that takes too long."""
        deadline = time.monotonic() + (timeout or 3600)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise subprocess.TimeoutExpired("a forked program", timeout or 3600)
            time.sleep(0.01)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its stdout and stderr, once it has ended."""
        self.wait(timeout)
        out, err = (Path(self._output.name, name).read_text(encoding="utf-8") for name in ("out", "err"))
        return out, err


def start(arguments: Sequence[object], environment: Mapping[str, str], new_session: bool = False) -> WarmProcess:
    """`python ARGUMENTS`, which are `-m MODULE ...` or `SCRIPT ...`."""
    return WarmProcess([str(word) for word in arguments], environment, new_session)


def run_together(arguments: Sequence[object], environment: Mapping[str, str], count: int = 1) -> tuple[int, str, str]:
    """Several processes of one program that train together, to their end; (exit code, stdout, stderr) of all.

    Where one fails, the others are stopped, as they would wait for it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    together |= {"LOCAL_WORLD_SIZE": str(count), "GROUP_WORLD_SIZE": "1"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **together} if count > 1 else {} for rank in range(count)]
    processes = [start(arguments, {**environment, **rank}) for rank in ranks]
    deadline, failed = time.monotonic() + 600, False
    while None in [process.poll() for process in processes]:
        if not failed and any(process.returncode for process in processes):
            deadline, failed = time.monotonic() + 30, True
            for process in processes:
                process.terminate()
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.02)
    out, err = zip(*(process.communicate() for process in processes), strict=True)
    return int(any(process.returncode for process in processes)), "".join(out), "".join(err)


@cache
def _server() -> subprocess.Popen[str]:
    """The process that has imported everything; it ends when this one does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, __file__], env=environment, **pipes)


def _ask(question: dict[str, Any]) -> Any:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(question) + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    assert answer, "the process that is forked has ended; its error is above"
    return json.loads(answer)


def _serve() -> dict[str, Any]:
    """Fork a process for each question that wants one, and answer; in a forked process, return its question."""
    for line in iter(sys.stdin.readline, ""):
        question = json.loads(line)
        if "ended" in question:
            pid, status = os.waitpid(question["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                return dict(question)
        print(json.dumps(answer), flush=True)
    os._exit(0)  # nothing is left to do at exit, and nobody to be told


def _become(question: dict[str, Any]) -> None:
    """Be `python WORDS`: its streams, environment, folder and arguments."""
    if question["new_session"]:
        os.setsid()
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in question["output"]]
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.environ.clear()
    os.environ.update(question["environment"])
    os.chdir(question["cwd"])
    words = question["words"]
    if words[0] == "-m":
        sys.path[0] = question["cwd"]
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(words[0]).parent)
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # serving is an extra
            importlib.import_module(name)
    _become(_serve())
