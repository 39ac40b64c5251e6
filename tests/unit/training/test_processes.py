"""What a step's loop is told by its surroundings."""

from __future__ import annotations

import pytest
import torch

from deixis.training.processes import grouped, peak_memory_text, seed_step


@pytest.mark.parametrize(("count", "size", "wanted"), [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (1, 3, [1]), (0, 1, [])])
def test_batches_are_grouped_by_step(count: int, size: int, wanted: list[int]) -> None:
    groups = list(grouped(range(count), size))
    assert [len(group) for group in groups] == wanted
    assert [batch for group in groups for batch in group] == list(range(count))


def test_no_batch_is_fetched_before_its_step() -> None:
    fetched = []
    groups = grouped((fetched.append(number) or number for number in range(6)), 2)
    next(groups)
    assert fetched == [0, 1]


def test_peak_memory_is_reported_in_mebibytes() -> None:
    amount = peak_memory_text(torch.device("cpu")).split(" MiB ")[0]
    assert 50 < float(amount.replace(",", "")) < 1e6


@pytest.mark.parametrize("seed", [0, 2**32, 2**40, 2**64, 10**30])
def test_any_seed_gives_each_step_and_process_numbers_of_its_own(seed: int) -> None:
    drawn = []
    with torch.random.fork_rng(devices=[]):
        for step, process in ((5, 0), (5, 0), (6, 0), (5, 1)):
            seed_step(seed, step, process)
            drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_small_seeds_give_the_numbers_that_they_always_gave() -> None:
    with torch.random.fork_rng(devices=[]):
        seed_step(3, 5, 2)
        drawn = torch.rand(3)
        torch.manual_seed((3 * 1_000_003 + 5) * 4_099 + 2)
        assert torch.equal(drawn, torch.rand(3))
