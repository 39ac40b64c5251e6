"""One writer per folder: the second is refused by name of the first, and a lock without an owner is taken over."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deixis.errors import TrainingError
from deixis.recipes.run.lock import LOCK_FILE, STALE_AFTER_S, run_lock

HOLDER = """
import sys, time
from pathlib import Path
from deixis.recipes.run.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def a_lock(folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    values = {
        "pid": os.getppid(),
        "host": socket.gethostname(),
        "started": psutil.Process(os.getppid()).create_time(),
        "since": "2026-01-01 00:00:00",
    }
    (folder / LOCK_FILE).write_text(json.dumps({**values, **changes}))
    return folder / LOCK_FILE


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    process = hold(tmp_path)
    with pytest.raises(TrainingError, match="another run is writing here") as caught, run_lock(tmp_path):
        pytest.fail("two hold it")
    assert f"process {process.pid} on {socket.gethostname()}, since 20" in str(caught.value)
    assert "\n" not in str(caught.value)
    process.kill()
    process.wait()
    assert (tmp_path / LOCK_FILE).exists()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_stays_empty_goes_and_others_stay(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK_FILE).exists()
    assert not (tmp_path / "a").exists()
    with run_lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "x").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x"]


def test_an_error_releases_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_lock(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 + 7},
        {"pid": -1},
        {"pid": 10**30},
        {"started": 1e9},
        {"pid": "x"},
        {"host": None, "pid": None},
    ],
    ids=["gone", "no number of a process", "beyond any number", "the number is another's now", "text", "nothing"],
)
def test_a_lock_without_an_owner_is_taken_over(tmp_path: Path, changes: dict[str, object]) -> None:
    a_lock(tmp_path, **changes)
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"half {", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_lock_is_taken_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(content)
    with run_lock(tmp_path):
        pass


def test_a_lock_of_a_living_process_holds_however_old(tmp_path: Path) -> None:
    os.utime(a_lock(tmp_path), (1, 1))
    with pytest.raises(TrainingError, match=f"process {os.getppid()}"), run_lock(tmp_path):
        pass


def test_a_lock_of_another_host_holds_while_it_is_touched(tmp_path: Path) -> None:
    path = a_lock(tmp_path, host="elsewhere", pid=1)
    with pytest.raises(TrainingError, match="process 1 on elsewhere"), run_lock(tmp_path):
        pass
    old = time.time() - STALE_AFTER_S - 5
    os.utime(path, (old, old))
    with run_lock(tmp_path):
        pass


def _compete(folder: Path, results: object, go: object) -> None:
    go.wait()  # type: ignore[attr-defined]
    try:
        with run_lock(folder):
            inside = folder / "inside"
            inside.touch(exist_ok=False)  # fails where two are inside
            time.sleep(0.5)
            inside.unlink()
        results.put("held")  # type: ignore[attr-defined]
    except TrainingError:
        results.put("refused")  # type: ignore[attr-defined]
    except FileExistsError:
        results.put("both")  # type: ignore[attr-defined]


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path: Path) -> None:
    a_lock(tmp_path, started=1.0)
    context = multiprocessing.get_context("fork")
    results, go = context.Queue(), context.Event()
    processes = [context.Process(target=_compete, args=(tmp_path, results, go)) for _ in range(8)]
    for process in processes:
        process.start()
    go.set()
    found = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert "both" not in found
    assert "held" in found
    assert list(tmp_path.iterdir()) == []


def test_inactive_does_nothing(tmp_path: Path) -> None:
    with run_lock(tmp_path / "run", active=False):
        assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(TrainingError, match="cannot be written"), run_lock(tmp_path / "run"):
        pass
