"""What a loading worker's end means: a stop that was asked for, in the middle of an update or not, or a fault."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deixis.errors import Terminated, TrainingError
from deixis.training import loop
from deixis.training.run import LoopSettings, Run


def run_that_loses_its_workers(requested: bool, mid_update: bool) -> Any:
    run = object.__new__(Run)
    run.settings, run.mid_update = LoopSettings(epochs=1), False
    run.stop, run.accelerator = SimpleNamespace(requested=requested), None
    run.progress = SimpleNamespace(finished=False, step=3, epoch=0, step_in_epoch=3)

    def groups(epoch: int, start: int) -> Any:
        run.mid_update = mid_update
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")
        yield

    unused = dict.fromkeys(
        ("normaliser", "losses", "unsupervised_parts", "non_finite_samples", "evaluate", "save_model"), pytest.fail
    )
    return SimpleNamespace(model=torch.nn.Identity(), steps_per_epoch=10, shown=(), groups=groups, **unused), run


def test_in_the_middle_of_an_update_nothing_is_saved_and_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(loop, "save", lambda task, run, wait=True: saved.append(run.progress.step))
    with pytest.raises(TrainingError, match=r"step 3: SIGTERM was received .*not saved.*--resume"):
        loop.train(*run_that_loses_its_workers(requested=True, mid_update=True))
    assert saved == []
    with pytest.raises(Terminated):
        loop.train(*run_that_loses_its_workers(requested=True, mid_update=False))
    assert saved == [3]


@pytest.mark.parametrize("mid_update", [True, False])
def test_a_killed_worker_saves_the_run_unless_its_weights_are_changing(
    monkeypatch: pytest.MonkeyPatch, mid_update: bool
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(loop, "save", lambda task, run, wait=True: saved.append(run.progress.step))
    with pytest.raises(RuntimeError if mid_update else TrainingError, match="killed by signal"):
        loop.train(*run_that_loses_its_workers(requested=False, mid_update=mid_update))
    assert saved == ([] if mid_update else [3])


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="no SIGCHLD on this system")
def test_a_worker_lost_during_an_update_is_reported_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler raises as torch's does; the update is whole before."""

    def lost(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")

    run = SimpleNamespace(mid_update=False)
    before = signal.signal(signal.SIGCHLD, lost)
    try:
        changed = []

        def update() -> None:
            with Run.updating(run):
                os.kill(os.getpid(), signal.SIGCHLD)
                changed.append("weights")
                changed.append("position")

        with pytest.raises(RuntimeError, match="killed by signal"):
            update()
        assert (changed, run.mid_update) == (["weights", "position"], False)
        assert signal.getsignal(signal.SIGCHLD) is lost
        with pytest.raises(RuntimeError, match="killed by signal"):
            os.kill(os.getpid(), signal.SIGCHLD)
    finally:
        signal.signal(signal.SIGCHLD, before)
