"""The curves of a run, from its `metrics.jsonl`."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.data.reading import reads
from deixis.errors import DataError
from deixis.reporting.data import Curves
from deixis.reporting.outcome import Measured, Outcome

EPOCH_METRICS = ("AP", "AP50", "AP75", "gIoU", "cIoU")


@reads("a run's log")
def read_curves(path: str | Path) -> Curves:
    """Losses, learning rates, validation metrics and skipped steps of a run.

    Each line of the file is a JSON object with `kind` ("baseline", "step", "skip", "evaluation", "kept" or "test") and
    `step`; steps carry `loss*`, `*_error`, `iou`, `grad_norm` and `lr` (a number, or numbers by parameter group),
    evaluations `epoch` (from 0), metrics and `losses` on validation data. A last line that a crash cut short is
    left out.

    Raises:
        DataError: the file cannot be read, or another line is no record.
    """
    records = read_records(Path(path))
    steps = [record for record in records if record.get("kind") == "step"]
    rates = [_by_group(record.get("lr")) for record in steps]
    evaluations = [record for record in records if record.get("kind") in ("baseline", "evaluation")]
    measured = [record for record in evaluations if record.get("losses")]
    losses = [record["losses"] for record in measured]
    return Curves(
        steps=[int(record["step"]) for record in steps],
        losses=_columns(steps, _names(steps, _is_loss)),
        learning_rates=_columns(rates, _names(rates, lambda name: True)),
        epochs=[0 if record["kind"] == "baseline" else int(record["epoch"]) + 1 for record in evaluations],
        epoch_metrics=_columns(evaluations, [name for name in EPOCH_METRICS if any(name in r for r in evaluations)]),
        skipped=[_skip_line(record) for record in records if record.get("kind") == "skip"],
        validation_steps=[int(record["step"]) for record in measured],
        validation_losses=_columns(losses, _names(losses, _is_loss)),
    )


@reads("a run's log")
def read_outcome(log: str | Path, score: str) -> Outcome | None:
    """The outcome of a run, from its `metrics.jsonl`; None before its first evaluation.

    Raises:
        DataError: as `read_curves`.
    """
    before: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    tests: dict[str, dict[str, Any]] = {}
    for record in read_records(Path(log)):
        if record["kind"] == "baseline":
            before = record
        elif record["kind"] == "evaluation":
            last = record
            best = record if record["best"] else best
        elif record["kind"] == "kept":  # what was made of the best epoch's weights
            best = record
        elif record["kind"] == "test":
            tests[record["weights"]] = record
    if best is None or last is None:
        return None
    if best is last:
        tests.setdefault("last", tests.get("best", {}))
    return Outcome(
        score,
        None if before is None else Measured(0, _figures(before), _figures(tests.get("before", {}))),
        Measured(best["epoch"] + 1, _figures(best), _figures(tests.get("best", {}))),
        Measured(last["epoch"] + 1, _figures(last), _figures(tests.get("last", {}))),
    )


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a run's log; a last line that a crash cut short is left out.

    Raises:
        DataError: the file cannot be read, or another line is no record.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); was the run started?") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            records.append({"kind": record["kind"], "step": record["step"], **record})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if number == len(lines) and isinstance(error, ValueError):  # a crash in the middle of writing
                break
            raise DataError(f"{path}: line {number} is no record of a run; remove it") from error
    return records


def speed_facts(
    records: Sequence[Mapping[str, Any]],
    processes: int,
    price_per_hour: float,
    *,
    peak_tflops: float | None = None,
    recomputes: bool = False,
) -> dict[str, str]:
    """How fast a run was, what it waited for and what its pictures cost, from its log; nothing before the second step.

    Args:
        price_per_hour: of one process; 0 leaves the cost out.
        peak_tflops: most operations per second of one process, in 10^12.
        recomputes: activations are computed twice, and their operations counted twice.
    """
    # A run's first step also starts its workers and compiles.
    steps = [record for record in records if record["kind"] == "step" and "data_wait_share" in record][1:]
    if not steps:
        return {}
    per_second = statistics.median(record["images_per_second"] for record in steps)
    # Of all devices together, for 1,000 images.
    hours = 1000 / per_second / 3600 * processes
    facts = {
        "speed": f"{per_second:.3g} images per second in {processes} process{'es' if processes > 1 else ''}",
        "waiting for data": f"{100 * statistics.fmean(record['data_wait_share'] for record in steps):.1f} % of a step",
        "cost of 1,000 images": f"{hours:.3g} device hours"
        + (f", {hours * price_per_hour:.3g}" if price_per_hour else ""),
    }
    # counted in the run's first step; a resumed run has it in its log
    gflop = next((record["gflop_per_image"] for record in records if "gflop_per_image" in record), None)
    if gflop:
        # In 10^12 operations per second, of one process.
        reached = gflop * per_second / 1000 / processes
        share = f", {'HFU' if recomputes else 'MFU'} {100 * reached / peak_tflops:.3g} %" if peak_tflops else ""
        facts["arithmetic"] = f"{reached:.3g} TFLOP/s per process{share}"
    slowest = Counter(record["data_wait_most"]["process"] for record in steps if "data_wait_most" in record)
    if slowest:
        process, most = slowest.most_common(1)[0]
        facts["waits longest"] = f"process {process}, in {100 * most / len(steps):.0f} % of the steps"
    return facts


def _is_loss(name: str) -> bool:
    return name.startswith("loss") or name.endswith("_error") or name in ("grad_norm", "iou")


def _by_group(rate: Any) -> dict[str, Any]:
    return dict(rate) if isinstance(rate, Mapping) else {} if rate is None else {"learning rate": rate}


def _names(records: Iterable[Mapping[str, Any]], wanted: Callable[[str], bool]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record if wanted(name)))


def _columns(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[float]]:
    """Each name's values over the records; NaN where a record lacks it. ("nan" and "inf" may stand as strings.)"""
    return {name: [float(record.get(name, math.nan)) for record in records] for name in names}


def _skip_line(record: Mapping[str, Any]) -> str:
    culprits, samples = (", ".join(map(str, record.get(key, ()))) for key in ("non_finite", "samples"))
    return f"step {record.get('step')}: {culprits or 'a value'} not finite; samples: {samples or 'unknown'}"


def _figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """A logged evaluation without what belongs to the log, and without figures that are not finite."""
    of_log = ("kind", "step", "epoch", "best", "seconds", "weights")
    # as `MetricLogs` writes them; no other figure is a text
    return {k: v for k, v in record.items() if k not in of_log and v not in ("nan", "inf", "-inf")}
