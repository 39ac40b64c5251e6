"""The order of an epoch over shards: a permutation, any part of which is found without the rest."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.batching.epochs import epoch_batches
from deixis.data.batching.shard_order import BUCKET_BATCHES, WINDOW, ShapeOrder, ShardOrder

SIZES = np.array([5, 1, 9, 4] * 20)  # more than two windows of shards
COUNT = int(SIZES.sum())


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=50), st.integers(0, 3), st.integers(0, 3))
def test_every_sample_once_and_any_part_by_itself(sizes: list[int], seed: int, epoch: int) -> None:
    order = ShardOrder(np.array(sizes), seed, epoch)
    whole = order[:]
    assert sorted(whole.tolist()) == list(range(sum(sizes))) == list(range(len(order)))
    start, stop = len(whole) // 3, len(whole) // 3 * 2 + 1
    assert ShardOrder(np.array(sizes), seed, epoch)[start:stop].tolist() == whole[start:stop].tolist()


def test_epochs_and_seeds_differ_and_neighbours_come_from_few_shards() -> None:
    orders = [ShardOrder(SIZES, seed, epoch)[:].tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3
    shard_of = np.repeat(np.arange(len(SIZES)), SIZES)[orders[0]]
    first = shard_of[: SIZES.min() * WINDOW]
    assert len(set(first.tolist())) <= WINDOW
    assert len(set(first[:8].tolist())) > 2, "images of a window are shuffled together"


@pytest.mark.parametrize("step", [1, 7, 64])
def test_steps_of_similar_shape_keep_every_sample(step: int) -> None:
    ratios = np.random.default_rng(0).uniform(0.5, 2, COUNT)
    plain, alike = ShardOrder(SIZES, 3, 1), ShapeOrder(ShardOrder(SIZES, 3, 1), ratios, step, 3, 1)
    assert sorted(alike[:].tolist()) == list(range(COUNT))
    full = COUNT // step * step
    assert alike[full:COUNT].tolist() == plain[full:COUNT].tolist()
    if step == 7:
        spread = [np.ptp(ratios[order[:full].reshape(-1, step)], axis=1).mean() for order in (plain, alike)]
        assert spread[1] < spread[0] / 3
        parts = [alike[start : start + 5].tolist() for start in range(0, COUNT, 5)]
        assert [place for part in parts for place in part] == alike[:].tolist()
        assert BUCKET_BATCHES * step < full, "more than one window was tried"


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("shapes", [False, True])
def test_processes_share_the_steps_of_one_and_resume_anywhere(processes: int, shapes: bool) -> None:
    ratios = np.random.default_rng(0).uniform(0.5, 2, COUNT) if shapes else None

    def batches(batch_size: int, number: int, index: int) -> list[list[int]]:
        found = epoch_batches(
            *(COUNT, batch_size, 2, 7),
            num_processes=number,
            process_index=index,
            aspect_ratios=ratios,
            shard_sizes=SIZES,
        )
        middle = len(found) // 2
        assert list(found[middle:]) == list(found)[middle:]
        return [[index for _, index in batch] for batch in found]

    whole = batches(8, 1, 0)
    shared = [batches(8 // processes, processes, index) for index in range(processes)]
    assert [sorted(chain(*parts)) for parts in zip(*shared, strict=True)] == [sorted(step) for step in whole]
    assert sorted(chain(*whole)) == list(range(COUNT))


def test_a_process_without_a_sample_repeats_the_first_ones() -> None:
    sizes = np.array([4, 5])
    shared = [epoch_batches(9, 1, 0, 0, num_processes=4, process_index=i, shard_sizes=sizes) for i in range(4)]
    shown = [batches[step][0][1] for step in range(3) for batches in shared]
    assert shown == [*ShardOrder(sizes, 0, 0)[:], *shown[:3]]


def test_ten_million_samples_take_no_memory_of_their_own() -> None:
    import tracemalloc

    tracemalloc.start()
    batches = epoch_batches(10**7, 16, 0, 0, shard_sizes=np.full(4_000, 2_500))
    assert len(batches[300_000]) == 16
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6, "the order of ten million samples would take 80 MB"
