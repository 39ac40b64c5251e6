"""Jobs that wait, run one at a time, and are kept for a while when they are done; each has a folder with its files."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from threading import Condition, Event, Thread
from typing import Any

from filelock import FileLock, Timeout

from deixis.atomic_files import write_atomic
from deixis.errors import DataError, DeixisError
from deixis.serving.batches import QueueFullError, StoppedError
from deixis.text import one_line

RECORD, RESULT, LOCK = "job.json", "result.jsonl", ".lock"
_RETRY_S = 30


class NoJobError(DeixisError):
    """There is no job of that id, or not any more."""


@dataclass
class Job:
    """Work and how far it is.

    Attributes:
        state: waiting, running, done, failed or cancelled.
        done, total: images or frames; total is None until it is known.
        created, finished: seconds since 1970.
    """

    id: str
    asked: dict[str, Any]
    state: str = "waiting"
    done: int = 0
    total: int | None = None
    error: str = ""
    created: float = field(default_factory=time.time)
    finished: float | None = None

    def __post_init__(self) -> None:
        self.stop = Event()
        """Set when it is to end early."""

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("done", "failed", "cancelled")


class Jobs:
    """The jobs of a server.

    Args:
        run: does the work of a job in its folder, reports by `done` and `total`, and looks at `stop` between images.
        folder: where jobs are kept; those that had not ended when a server stopped begin again with the next. Without
            one they are gone with the server.
        max_waiting: jobs that may wait; more are refused.
        keep, keep_s: ended jobs are kept, with their results, up to this number and for this many seconds.
    """

    def __init__(
        self,
        run: Callable[[Job, Path], None],
        folder: Path | None = None,
        *,
        max_waiting: int = 16,
        keep: int = 100,
        keep_s: float = 24 * 3600.0,
    ) -> None:
        self._run, self.max_waiting, self.keep, self.keep_s = run, max_waiting, keep, keep_s
        self._lasting = folder is not None
        self.folder = Path(mkdtemp(prefix="deixis-jobs-")) if folder is None else folder
        self._jobs: dict[str, Job] = {}
        self._changed = Condition()
        self._closing = False
        self._lock = FileLock(self.folder / LOCK, timeout=0, thread_local=False)  # taken and given back by two threads
        self._thread = Thread(target=self._loop, name="deixis-jobs", daemon=True)

    def start(self) -> None:
        """Read what an earlier server left, and begin.

        Raises:
            DataError: the folder cannot be used, or another server does.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            records = sorted(self.folder.glob(f"*/{RECORD}"))
        except Timeout as error:
            raise DataError(f"{self.folder}: another server keeps its jobs here; choose another folder") from error
        except OSError as error:
            raise DataError(f"{self.folder}: cannot be used for jobs ({error.strerror}); choose another") from error
        for record in records:
            with suppress(OSError, ValueError, TypeError, RecursionError):  # of a crash, or no job
                job = Job(**json.loads(record.read_text(encoding="utf-8")))
                job.asked, job.created = dict(job.asked), float(job.created)
                job.finished = None if job.finished is None else float(job.finished)
                if job.id == record.parent.name:
                    job.state = job.state if job.over else "waiting"
                    self._jobs[job.id] = job
        self._jobs = dict(sorted(self._jobs.items(), key=lambda item: item[1].created))
        self._thread.start()

    def folder_of(self, job: Job) -> Path:
        """Where a job's files are."""
        return self.folder / job.id

    def add(self, asked: dict[str, Any], files: dict[str, bytes] | None = None) -> Job:
        """A new job that waits.

        Args:
            files: what it works on, by name, for its folder.

        Raises:
            QueueFullError: too many wait.
            StoppedError: the server stops.
        """
        with self._changed:
            self._forget()
            if self._closing:
                raise StoppedError
            if sum(job.state == "waiting" for job in self._jobs.values()) >= self.max_waiting:
                raise QueueFullError(_RETRY_S, "jobs")
            job = Job(secrets.token_hex(8), asked)
            for name, content in (files or {}).items():
                write_atomic(self.folder_of(job) / name, content)
            # The record last: a folder without one is not taken for a job.
            self._write(job)
            self._jobs[job.id] = job
            self._changed.notify_all()
            return job

    def find(self, name: str) -> Job:
        """The job of an id.

        Raises:
            NoJobError: there is none, or not any more.
        """
        with self._changed:
            self._forget()
            if name not in self._jobs:
                raise NoJobError(f"no job {name[:40]!r}; it may have ended long ago")
            return self._jobs[name]

    def all(self) -> list[Job]:
        """The jobs that are known, oldest first."""
        with self._changed:
            self._forget()
            return list(self._jobs.values())

    def cancel(self, name: str) -> Job:
        """End a job that waits or runs, whose results so far are kept; forget one that has ended, with its files.

        Raises:
            NoJobError: there is none.
        """
        job = self.find(name)
        with self._changed:
            job.stop.set()
            if job.over:
                self._remove(job)
            elif job.state == "waiting":
                self._end(job, "cancelled")
            self._changed.notify_all()
        return job

    def close(self, finish_s: float) -> None:
        """Take nothing more, give the job that runs some time to end, and return."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(finish_s)
        # Time is over: it stops after the image at hand.
        for job in self._jobs.values():
            if job.state == "running":
                job.stop.set()
        self._thread.join()
        self._lock.release()
        if not self._lasting:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._run(job, self.folder_of(job))
                state, error = ("cancelled" if job.stop.is_set() else "done"), ""
            except DeixisError as problem:
                state, error = "failed", one_line(problem)
            except Exception as problem:  # a fault of ours must not end the jobs that come after
                state, error = "failed", f"{type(problem).__name__}: {one_line(problem)}"
            with self._changed:
                if self._closing and job.stop.is_set() and self._lasting:
                    job.state = "waiting"  # begins again with the next server
                    self._write(job)
                else:
                    self._end(job, state, error)

    def _next(self) -> Job | None:
        with self._changed:
            while True:
                if self._closing:
                    return None
                job = next((job for job in self._jobs.values() if job.state == "waiting"), None)
                if job is not None:
                    job.state, job.done, job.total = "running", 0, None
                    self._write(job)
                    return job
                self._changed.wait()

    def _end(self, job: Job, state: str, error: str = "") -> None:
        job.state, job.error, job.finished = state, error, time.time()
        self._write(job)

    def _write(self, job: Job) -> None:
        with suppress(DataError):  # a full disk must not end the jobs; the record in memory is the one that counts
            write_atomic(self.folder_of(job) / RECORD, json.dumps(asdict(job)))

    def _forget(self) -> None:
        over = [job for job in self._jobs.values() if job.over]
        over.sort(key=lambda job: job.finished or 0.0)
        late = time.time() - self.keep_s
        kept = over[-self.keep :] if self.keep else []
        for job in over:
            if (job.finished or 0.0) < late or job not in kept:
                self._remove(job)

    def _remove(self, job: Job) -> None:
        del self._jobs[job.id]
        shutil.rmtree(self.folder_of(job), ignore_errors=True)
