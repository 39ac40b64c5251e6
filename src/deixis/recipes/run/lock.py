"""One writer per folder: a lock file that names its owner, and that is taken over when the owner is gone.

A lock of this host is stale when its process is gone, or when another process has its number by now. Hosts that share
a file system cannot see each other's processes: there the owner touches the file every few seconds, and a lock that
was not touched for two minutes is stale. Ages are compared by the file system's clock, not by the hosts'.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from deixis.errors import TrainingError

LOCK_FILE = ".deixis.lock"
HEARTBEAT_S = 10.0
STALE_AFTER_S = 120.0
_SAME_START_S = 2.0  # start times of one process, read twice, differ by rounding only


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        pid, host: the process.
        started: when the process started, in seconds since 1970: a number that is used again has another start.
        since: when the lock was taken, as people read it.
    """

    pid: int
    host: str
    started: float
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def run_lock(folder: Path, active: bool = True) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is missing, and removed again if it stays empty.

    Args:
        active: False does nothing, for processes other than a run's first, and for dry runs.

    Raises:
        TrainingError: another process holds the lock, or the folder cannot be written.
    """
    if not active:
        yield
        return
    path = folder / LOCK_FILE
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take(path)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); choose another --output") from error
    ended = threading.Event()
    # a daemon: a lock must not keep its process alive
    heart = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        # A beat after the lock is gone might touch the lock of the next owner.
        heart.join()
        with suppress(OSError):
            path.unlink()
            for place in missing:  # from the inside out; rmdir fails where something was written
                place.rmdir()


def _take(path: Path) -> None:
    own = Owner(os.getpid(), socket.gethostname(), psutil.Process().create_time(), time.strftime("%Y-%m-%d %H:%M:%S"))
    for _ in range(10):
        # The lock appears with its content in one step: a link to a complete file.
        draft = path.with_name(f"{path.name}.{own.host}.{own.pid}")
        draft.write_text(json.dumps(asdict(own)) + "\n", encoding="utf-8")
        try:
            os.link(draft, path)
            return
        except FileExistsError:
            _remove_if_stale(path)
        except OSError:  # a file system without links
            with suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
                file.write(draft.read_text(encoding="utf-8"))
                return
            _remove_if_stale(path)
        finally:
            draft.unlink(missing_ok=True)
    raise TrainingError(f"{path}: several runs try to take over this lock at once; start one of them again")


def _remove_if_stale(path: Path) -> None:
    """Raises TrainingError where the lock's owner lives."""
    owner = _owner_of(path)
    if owner is not None and not _is_stale(path, owner):
        raise TrainingError(
            f"{path.parent}: another run is writing here ({owner}); wait for it, choose another --output or "
            f"--experiment-name, or delete {path} if that run is gone"
        )
    # Renamed first: of two processes that find the lock stale, one removes it, and neither removes the other's new one.
    aside = path.with_name(f"{path.name}.stale.{os.getpid()}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _owner_of(aside) != owner:  # it was another process's new lock by now
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink()


def _owner_of(path: Path) -> Owner | None:
    """Who wrote the lock; None for a file that nobody's lock looks like."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Owner(int(values["pid"]), str(values["host"]), float(values["started"]), str(values["since"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_stale(path: Path, owner: Owner) -> bool:
    if owner.host == socket.gethostname():
        try:
            started = psutil.Process(owner.pid).create_time()
        except (psutil.NoSuchProcess, ValueError, OverflowError):
            return True
        except psutil.AccessDenied:
            return False
        return bool(abs(started - owner.started) > _SAME_START_S)
    probe = path.with_name(f"{path.name}.clock.{os.getpid()}")
    try:
        probe.touch()
        age_s = probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return True  # released just now
    finally:
        probe.unlink(missing_ok=True)
    return age_s > STALE_AFTER_S


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        with suppress(OSError):
            os.utime(path)
