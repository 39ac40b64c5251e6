"""What gradient checkpointing costs, measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deixis.training import cost as price
from deixis.training.cost import Recomputation, measure_recomputation, peak_memory_text
from deixis.training.processes import make_accelerator


class Slow(nn.Module):
    """Takes a hundred ticks of the clock; `inner` is called inside."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock, self.inner = clock, nn.Linear(3, 3)

    def forward(self, given: Tensor) -> Tensor:
        self.clock[0] += 100
        out: Tensor = self.inner(given).exp()
        return out


class SlowTask:
    """Two layers, recomputed or not; a batch takes ten ticks besides them."""

    def __init__(self, clock: list[float], recompute: bool, batches: int = 1) -> None:
        self.clock, self.recompute, self.batches = clock, recompute, batches
        self.model = nn.Sequential(Slow(clock), Slow(clock))
        self.steps_per_epoch, self.shown = batches, ("AP",)

    def groups(self, epoch: int, start: int) -> Any:
        return iter([[SimpleNamespace()]] * self.batches)

    def normaliser(self, group: Any) -> Tensor:
        return torch.ones(())

    def losses(self, batch: Any, normaliser: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.clock[0] += 10
        hidden = torch.ones(1, 3)
        for layer in self.model:
            hidden = checkpoint(layer, hidden, use_reentrant=False) if self.recompute else layer(hidden)
        return hidden.sum(), {}

    def untaught(self, group: Any) -> tuple[str, ...]:
        return ()

    def suspects(self, group: Any, normaliser: Tensor) -> list[str]:
        return []

    def evaluate(self) -> dict[str, Any]:
        return {}

    def save_model(self, folder: Any) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    ticks = [0.0]
    monkeypatch.setattr(price, "_now", lambda device: ticks[0])
    return ticks


@pytest.mark.parametrize(("recompute", "wanted"), [(True, (410, 200)), (False, (210, 0))])
def test_what_is_computed_twice_is_timed_once(clock: list[float], recompute: bool, wanted: tuple[float, float]) -> None:
    """Inner modules count as part of the outer one, and the first forward pass not at all."""
    task = SlowTask(clock, recompute)
    before = [weight.clone() for weight in task.model.parameters()]
    assert measure_recomputation(task, make_accelerator(cpu=True)) == wanted
    assert all(weight.grad is None for weight in task.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, task.model.parameters(), strict=True))
    ticks = clock[0]
    task.losses(None, torch.ones(()))[0].backward()
    assert clock[0] == ticks + 210 + 200 * recompute  # no hook stays behind


def test_an_empty_epoch_has_no_price(clock: list[float]) -> None:
    assert measure_recomputation(SlowTask(clock, True, batches=0), make_accelerator(cpu=True)) is None


def test_texts() -> None:
    assert str(Recomputation(1.2, 0.2)) == "0.200 s of 1.200 s a batch are computed again (20 % longer)"
    amount = peak_memory_text(torch.device("cpu")).split(" MiB ")[0]
    assert 50 < float(amount.replace(",", "")) < 1e6
