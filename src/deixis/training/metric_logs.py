"""Where a run writes what it measures: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from torch.utils.tensorboard import SummaryWriter

from deixis.errors import TrainingError

TIMING_FIELDS = ("images_per_second", "peak_memory_mb", "seconds")  # differ between two equal runs


class Trackers:
    """Writes one line a record to metrics.jsonl and its numbers to TensorBoard.

    Every record has `kind` ("baseline", "step", "skip", "evaluation") and `step`. Non-finite numbers are written as the
    strings "nan", "inf" and "-inf", so that every line is strict JSON.

    Args:
        folder: of the run; None writes nothing (processes other than the first).
        keep_bytes: length of metrics.jsonl at the checkpoint resumed from; what stands after it is done again.
        step: first step to be written, which TensorBoard's older events are cut at.
    """

    def __init__(self, folder: Path | None, keep_bytes: int = 0, step: int = 0) -> None:
        self._file: TextIO | None = None
        self._board: Any = None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = path = folder / "metrics.jsonl"
            path.touch()
            os.truncate(path, min(keep_bytes, path.stat().st_size))
            self._file = path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
        except OSError as error:
            raise TrainingError(f"{folder}: cannot be written ({error}); choose another --output") from error

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            with suppress(OSError):  # what did not fit was reported when it was written
                self._file.close()
        with self._on_board() as board:
            board and board.close()

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one record; nested dictionaries stay nested in the file and are joined by `/` in TensorBoard."""
        if self._file is None:
            return
        with self._in_log():
            self._file.write(json.dumps(_strict({"kind": kind, "step": step, **values}), allow_nan=False) + "\n")
        with self._on_board() as board:
            for name, value in _numbers(values) if board else ():
                board.add_scalar(f"{kind}/{name}", value, step)

    def sync(self) -> int:
        """Flush to disk; the length of metrics.jsonl, in bytes."""
        if self._file is None:
            return 0
        with self._in_log():
            self._file.flush()
            os.fsync(self._file.fileno())
        with self._on_board() as board:
            board and board.flush()
        return self._file.tell()

    @contextmanager
    def _in_log(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{self._path}: cannot be written ({error.strerror}); free some space, then give --resume"
            ) from error

    @contextmanager
    def _on_board(self) -> Iterator[Any]:
        """TensorBoard's writer, or None. It only repeats the log: where it fails, the run goes on without it."""
        try:
            yield self._board
        except OSError as error:
            self._board = None
            print(
                f"deixis: warning: TensorBoard's file cannot be written ({error}); the run goes on without it",
                file=sys.stderr,
            )


def _strict(value: Any) -> Any:
    """The value with its non-finite floats as strings."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((prefix + name, float(value)))
    return found
