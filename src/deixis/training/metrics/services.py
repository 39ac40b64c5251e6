"""TensorBoard, wandb and mlflow, by accelerate's trackers. They repeat what metrics.jsonl holds.

A service that fails is dropped with a warning, and the run continues. A resumed run writes no step twice: TensorBoard's
reader discards the events from the resumed step on; wandb and mlflow, which discard nothing, are not sent again what
they were sent before the interruption.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker

from deixis.atomic_files import write_atomic
from deixis.errors import TrainingError
from deixis.text import one_line, printable

HINTS = {
    "tensorboard": "choose another --output",
    "wandb": "run 'wandb login', or set WANDB_MODE=offline",
    "mlflow": "check MLFLOW_TRACKING_URI",
}
"""The services, and what to do where one cannot be started."""
PROJECT = "deixis"
"""wandb's project and mlflow's experiment, unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME names another."""
STATE_FILE = "metric_services.json"
_MAX_PER_CALL = 1000  # metrics in one call of mlflow
_LONGEST_NAME = 250  # of a metric in mlflow


@dataclass(frozen=True)
class ResumedLog:
    """What metrics.jsonl held when a run was resumed.

    Attributes:
        step: the first step to be written.
        kept: records up to the checkpoint.
        redone: records after it, which the services were sent and which will be measured again.
    """

    step: int
    kept: Sequence[Mapping[str, Any]]
    redone: Sequence[Mapping[str, Any]]


class MetricServices:
    """The services of a run; see the module.

    Args:
        folder: of the run, after which the run is named.
        names: of `HINTS`.
        options: of the run, as plain values, which wandb and mlflow store beside the metrics.
        resumed: None for a new run.

    Raises:
        TrainingError: a service cannot be started.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], options: Mapping[str, Any], resumed: ResumedLog | None = None
    ) -> None:
        runs, self._sent = _read_state(folder / STATE_FILE) if resumed else ({}, {})
        # sent after the checkpoint and before the interruption: the last step of each kind
        for record in resumed.redone if resumed and runs else ():
            self._sent[_label(record)] = max(record["step"], self._sent.get(_label(record), -1))
        self._continued = {name for name in names if name in runs}
        self._trackers: dict[str, Any] = {}
        for name in names:
            # TensorBoard keeps its earlier events in the folder; where these are gone it gets all records again.
            has_events = name == "tensorboard" and any((folder / name).glob("events.*"))
            first = resumed.step if resumed and has_events else 0
            self._trackers[name] = tracker = _start(name, folder, runs.get(name), first)
            if name in self._continued:
                continue
            if name != "tensorboard":
                runs[name] = _run_id(name, tracker)
                with self._or_without(name):
                    tracker.store_init_configuration(_texts(options))
            for record in resumed.kept if resumed else ():  # what TensorBoard discards; all of it for a new service
                if record["step"] >= first:
                    self._send(name, record)
        if runs:
            write_atomic(folder / STATE_FILE, json.dumps({"runs": runs, "sent": self._sent}) + "\n")

    def log(self, record: Mapping[str, Any]) -> None:
        """Send the numbers of a record of metrics.jsonl."""
        again = record["step"] <= self._sent.get(_label(record), -1)
        for name in tuple(self._trackers):
            if not (again and name in self._continued):
                self._send(name, record)

    def finish(self) -> None:
        """Close all services."""
        for name, tracker in tuple(self._trackers.items()):
            with self._or_without(name):
                tracker.finish()

    def _send(self, name: str, record: Mapping[str, Any]) -> None:
        values = {key: value for key, value in record.items() if key not in ("kind", "step")}
        numbers = list(_numbers(values, _label(record)).items())
        with self._or_without(name):
            for start in range(0, len(numbers), _MAX_PER_CALL):
                self._trackers[name].log(dict(numbers[start : start + _MAX_PER_CALL]), step=record["step"])

    @contextmanager
    def _or_without(self, name: str) -> Iterator[None]:
        """A service that fails inside the block is dropped, with a warning the first time."""
        try:
            yield
        except Exception as error:
            if self._trackers.pop(name, None) is not None:
                print(
                    f"deixis: warning: {name} failed ({printable(one_line(error))}); the run continues without it, "
                    "and metrics.jsonl has all figures",
                    file=sys.stderr,
                )


def _start(name: str, folder: Path, run_id: str | None, first: int) -> Any:
    """A started tracker; of the service's earlier run where there is one.

    Raises:
        TrainingError: it cannot be started.
    """
    title = "/".join(folder.parts[-2:])
    tracker: Any
    if name == "tensorboard":
        tracker = TensorBoardTracker("tensorboard", folder, purge_step=first)
    elif name == "wandb":
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        # "allow" continues the run of this id, and starts one where there is none
        tracker = WandBTracker(project, name=title, id=run_id, resume="allow", dir=str(folder))
    else:
        tracker = MLflowTracker(PROJECT, run_id=run_id, run_name=title)
    try:
        tracker.start()
    except Exception as error:
        reason = printable(one_line(error))
        raise TrainingError(f"--log-with {name}: cannot be started ({reason}); {HINTS[name]}") from error
    return tracker


def _run_id(name: str, tracker: Any) -> str:
    """What wandb or mlflow calls the run, by which a resumed one continues it."""
    return str(tracker.run.id if name == "wandb" else tracker.active_run.info.run_id)


def _read_state(path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """(the services' names of the run, the last step sent by label); empty where there is no such file."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return dict(state["runs"]), {str(label): int(step) for label, step in state["sent"].items()}
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(f"{path}: cannot be read ({one_line(error)}); remove it to start new runs") from error


def _label(record: Mapping[str, Any]) -> str:
    """What the names of a record's numbers begin with: "step", "evaluation", "test/best"."""
    return f"{record['kind']}/{record['weights']}" if "weights" in record else str(record["kind"])


def _numbers(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Numbers by name, nested names joined by `/`; other signs than all services accept become `_`."""
    found: dict[str, float] = {}
    for key, value in values.items():
        part = re.sub(r"[^\w.\- ]", "_", key)
        name = f"{prefix}/{part if part.strip('.') else '_'}"[:_LONGEST_NAME]
        if isinstance(value, Mapping):
            found |= _numbers(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool):  # bool is an int
            found[name] = float(value)
    return found


def _texts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that a service can store: lists and the like as text."""
    plain = (bool, int, float, str)
    return {name: value if isinstance(value, plain) else str(value) for name, value in options.items()}
