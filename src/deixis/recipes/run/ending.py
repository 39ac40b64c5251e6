"""What a run measures besides its epochs: before training, on test data, and of the weights that are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from deixis.errors import Terminated
from deixis.training.loop import measure_baseline
from deixis.training.run import Run, Task, save
from deixis.training.sharding import whole

MeasureTest = Callable[[Path | None], Mapping[str, Any]]
"""Metrics on test data of the model in a folder, or of the run's own as it is."""

ChangeBest = Callable[[Path, Path], Mapping[str, Any]]
"""Writes the weights that a run keeps into a folder, given the best epoch's; their metrics on validation data."""


def measure_before(task: Task, run: Run, measure_test: MeasureTest | None) -> None:
    """Measure the weights that training starts from. SIGTERM saves them, so that the run can be resumed here."""
    try:
        measure_baseline(task, run)
        if measure_test:
            log_test(run, "before", -1, measure_test, None)
    except Terminated:
        save(task, run, wait=False)
        raise


def kept_weights(folder: Path) -> Path:
    """The weights that a trained run keeps: the best epoch's, or what was made of them."""
    kept = folder / "checkpoints" / "kept"
    return kept if kept.exists() else folder / "checkpoints" / "best"


def log_kept(run: Run, change_best: ChangeBest) -> None:
    """Make the weights that are kept of the best epoch's, and log their metrics."""
    checkpoints = run.folder / "checkpoints"
    with run.stop.interrupts(), run.bar.labelled("making the weights that are kept"):
        metrics = change_best(checkpoints / "best", checkpoints / "kept")
    run.logs.log("kept", run.progress.step, {"epoch": run.progress.best_epoch, **metrics})
    run.logs.sync()


def test_result(run: Run, measure_test: MeasureTest) -> None:
    """Measure the weights that are kept, read from where users find them, and those of the last epoch."""
    last = run.progress.epoch - 1
    log_test(run, "best", run.progress.best_epoch, measure_test, kept_weights(run.folder))
    if run.progress.best_epoch == last:  # the same weights: measured above
        return
    with run.average.applied() if run.average else nullcontext():
        log_test(run, "last", last, measure_test, None)


def log_test(run: Run, weights: str, epoch: int, measure_test: MeasureTest, folder: Path | None) -> None:
    """Measure on test data and log it; see `MeasureTest` for `folder`."""
    with run.stop.interrupts(), run.bar.labelled("measuring on test data"), whole(run.sharding):
        metrics = measure_test(folder)
    run.logs.log("test", run.progress.step, {"weights": weights, "epoch": epoch, **metrics})
    run.logs.sync()
