"""Which epoch's weights a run keeps, also where a metric cannot be measured."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deixis.training import loop
from deixis.training.checkpoint import Progress
from deixis.training.run import LoopSettings, Run


def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: list[dict[str, float]], patience: int) -> Any:
    """(the run after epochs with these metrics, the kept epochs, what was logged, what was printed)."""
    kept: list[int] = []
    logged: list[dict[str, Any]] = []
    printed: list[str] = []
    run = object.__new__(Run)
    run.folder, run.settings, run.progress = tmp_path, LoopSettings(epochs=9, patience=patience), Progress()
    run.average = run.sharding = None
    run.accelerator = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)
    run.stop = SimpleNamespace(interrupts=nullcontext)
    run.bar = SimpleNamespace(console=SimpleNamespace(print=printed.append), labelled=lambda text: nullcontext())
    run.watch, run.identity, run.optimizer = SimpleNamespace(finish=lambda: None), None, None
    run.logs = SimpleNamespace(log=lambda kind, step, record: logged.append(record), sync=lambda: 0)
    monkeypatch.setattr(loop, "save", lambda task, run: None)
    monkeypatch.setattr(loop, "save_progress", lambda *_: None)
    found = iter(epochs)
    unused = dict.fromkeys(("groups", "normaliser", "losses", "unsupervised_parts", "non_finite_samples"), pytest.fail)
    task: Any = SimpleNamespace(
        **unused,
        steps_per_epoch=10,
        model=torch.nn.Identity(),
        shown=("gIoU", "cIoU"),
        evaluate=lambda: next(found),
        save_model=lambda folder: kept.append(run.progress.epoch),
    )
    for _ in epochs:
        loop.finish_epoch(task, run, last_step=99)
    return run, kept, logged, printed


def test_a_metric_that_is_missing_is_printed_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All phrases absent, all masks empty: gIoU is 1, cIoU is 0 / 0 and left out."""
    run, kept, logged, printed = evaluated(tmp_path, monkeypatch, [{"gIoU": 1.0}, {"gIoU": 0.5, "cIoU": 0.25}], 0)
    assert kept == [0]
    assert (run.progress.best_score, run.progress.best_epoch, run.progress.epoch) == (1.0, 0, 2)
    assert [record["best"] for record in logged] == [True, False]
    assert "gIoU 1.0000  cIoU cannot be measured on this data  best so far" in printed[0]
    assert "gIoU 0.5000  cIoU 0.2500" in printed[1]


def test_without_a_score_the_latest_weights_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, kept, logged, printed = evaluated(tmp_path, monkeypatch, [{"cIoU": 0.5}, {"gIoU": math.nan}, {}], 1)
    assert kept == [0, 1, 2]
    assert (run.progress.best_score, run.progress.best_epoch) == (-1.0, 2)
    assert not run.progress.finished, "nothing says that the run no longer gains"
    assert all("kept as the latest: no gIoU to choose by" in line for line in printed)
    assert all(record["best"] for record in logged)


def test_a_missing_score_is_never_better_than_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, kept, _, printed = evaluated(tmp_path, monkeypatch, [{}, {"gIoU": 0.0}, {}, {"gIoU": 0.1}], 0)
    assert kept == [0, 1, 3]
    assert run.progress.best_score == 0.1
    assert "kept" not in printed[2]
    assert "best" not in printed[2]
