"""What a step's loop is told by its surroundings."""

from __future__ import annotations

import pytest
import torch

from deixis.training.processes import grouped, peak_memory_text


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
