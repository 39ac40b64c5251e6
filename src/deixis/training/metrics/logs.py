"""Where a run writes what it measures: metrics.jsonl, and the services of `metric_services`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from deixis.errors import TrainingError
from deixis.training.metrics.services import MetricServices, ResumedLog


class MetricLogs:
    """Writes one line per record to metrics.jsonl, and the record's numbers to TensorBoard, wandb or mlflow.

    Every record has `kind` ("baseline", "step", "skip", "evaluation", "test") and `step`. Non-finite numbers are
    written as the strings "nan", "inf" and "-inf", so that every line is strict JSON.

    Args:
        folder: of the run; None writes nothing (processes other than the first).
        resume_at: (length of metrics.jsonl in bytes, the first step to be written) at the checkpoint that the run is
            resumed from, what stands after it is measured again; None for a new run.
        services: see `metric_services.HINTS`; empty for metrics.jsonl alone.
        options: of the run, as plain values, which wandb and mlflow store beside the metrics.

    Raises:
        TrainingError: the folder cannot be written, or a service cannot be started.
    """

    def __init__(
        self,
        folder: Path | None,
        resume_at: tuple[int, int] | None = None,
        services: Sequence[str] = ("tensorboard",),
        *,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._file: TextIO | None = None
        self._services: MetricServices | None = None
        if folder is None:
            return
        keep_bytes, step = resume_at or (0, 0)
        self._path = folder / "metrics.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path.touch()
            content = self._path.read_bytes() if resume_at else b""
            # `min`, because truncating to more than there is would append zeros
            os.truncate(self._path, min(keep_bytes, self._path.stat().st_size))
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"{folder}: cannot be written ({error}); choose another --output") from error
        earlier = ResumedLog(step, _records(content[:keep_bytes]), _records(content[keep_bytes:]))
        self._services = MetricServices(folder, services, options or {}, earlier if resume_at else None)

    def __enter__(self) -> MetricLogs:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            with suppress(OSError):  # what did not fit was reported when it was written
                self._file.close()
        if self._services:
            self._services.finish()

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one record; nested dictionaries stay nested in the file and are joined by `/` elsewhere."""
        if self._file is None or self._services is None:
            return
        record = {"kind": kind, "step": step, **values}
        with self._in_file():
            self._file.write(json.dumps(_strict(record), allow_nan=False) + "\n")
            self._file.flush()  # before the services: a resumed run reads here what they have been sent
        self._services.log(record)

    def sync(self) -> int:
        """Flush to disk; the length of metrics.jsonl, in bytes."""
        if self._file is None:
            return 0
        with self._in_file():
            self._file.flush()
            # on disk before a checkpoint states this length
            os.fsync(self._file.fileno())
        return self._file.tell()

    @contextmanager
    def _in_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{self._path}: cannot be written ({error.strerror}); free some space, then give --resume"
            ) from error


def _records(content: bytes) -> list[dict[str, Any]]:
    """The records in a part of a log; a line that a crash cut short is left out."""
    records = []
    for line in content.splitlines():
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and {"kind", "step"} <= record.keys():
                records.append(record)
    return records


def _strict(value: Any) -> Any:
    """The value with its non-finite floats as strings."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
