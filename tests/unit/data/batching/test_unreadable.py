"""Damaged training pictures are left out, named and counted up to a limit, whatever the number of workers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from deixis.data.batching.epochs import epoch_batches
from deixis.data.batching.loading import UnreadableImages, load_batches
from deixis.errors import DataError, DeixisError, UnreadableImageError


class Pictures(torch.utils.data.Dataset):
    """Numbers, some of which cannot be read."""

    def __init__(self, count: int, damaged: Sequence[int], error: type[DeixisError] = UnreadableImageError) -> None:
        self.count, self.damaged, self.error = count, set(damaged), error

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> int:
        if key[1] in self.damaged:
            raise self.error(f"{key[1]}.png: cannot decode image")
        return key[1]


def loaded(pictures: Pictures, limit: int | None, workers: int = 0, epochs: int = 1) -> tuple[list[Any], list[str]]:
    """All batches, and the lines of warning."""
    unreadable = None if limit is None else UnreadableImages(limit)
    batches: list[Any] = []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for epoch in range(epochs):
            keys = epoch_batches(len(pictures), 4, epoch, seed=0, shuffle=False)
            batches += load_batches(pictures, keys, list, workers, unreadable=unreadable)
    return batches, [str(line.message) for line in found if "takes its place" in str(line.message)]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_picture_takes_the_place(workers: int) -> None:
    batches, lines = loaded(Pictures(10, [1, 4, 5, 9]), 5, workers)
    assert batches == [[0, 2, 2, 3], [6, 6, 6, 7], [8, 0]]
    assert [line.split(":")[0] for line in lines] == ["1.png", "4.png", "5.png", "9.png"]
    assert lines[2].endswith("(3 of at most 5)")


def test_each_is_named_once_in_all_epochs() -> None:
    batches, lines = loaded(Pictures(8, [3]), 1, epochs=3)
    assert len(batches) == 6
    assert len(lines) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_one_too_many_stops_and_is_named(workers: int) -> None:
    with pytest.raises(UnreadableImageError, match=r"5\.png.*2 others.*--max-unreadable-images") as caught:
        loaded(Pictures(10, [1, 3, 5]), 2, workers)
    assert "\n" not in str(caught.value)


def test_nothing_but_damaged_pictures_stops() -> None:
    with pytest.raises(UnreadableImageError, match=r"0\.png"):
        loaded(Pictures(3, [0, 1, 2]), 10)


@pytest.mark.parametrize("limit", [0, None])
def test_without_a_limit_the_first_one_stops(limit: int | None) -> None:
    with pytest.raises(UnreadableImageError, match=r"1\.png"):
        loaded(Pictures(10, [1]), limit)


def test_other_faults_of_the_data_stop_at_once() -> None:
    with pytest.raises(DataError, match=r"1\.png"):
        loaded(Pictures(10, [1], DataError), 10)
