"""Mixing: shares as asked for, every sample before any comes again, and nothing but (seed, epoch, position) matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.batching.epochs import epoch_batches
from deixis.data.refer.loading import QuestionDataset
from deixis.data.sets.mixing import Joined, Mixture, apportion
from deixis.errors import OptionError
from deixis.refer_records import Expression, ReferDataset, ReferList, ReferSample

Place = tuple[int, int]  # (source, index in it)


def mixed(sizes: list[int], weights: Sequence[float] = (), length: int | None = None, seed: int = 0) -> Joined:
    """Sources whose samples are their own places."""
    sources = [[(source, index) for index in range(size)] for source, size in enumerate(sizes)]
    return Joined(sources, Mixture.of(sizes, weights, length, seed))


def epoch_of(mix: Joined, epoch: int) -> list[Place]:
    return [mix.at(epoch, position) for position in range(len(mix))]


SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.data())
def test_shares_follow_the_weights_and_add_up(sizes: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes)))
    length = data.draw(st.integers(1, 60))
    if min(apportion(weights, length)) < 1:
        with pytest.raises(OptionError, match=f"has no place in an epoch of {length} images"):
            mixed(sizes, weights, length)
        return
    mix = mixed(sizes, weights, length)
    assert len(mix) == length
    counts = Counter(source for source, _ in epoch_of(mix, 3))
    for source, weight in enumerate(weights):
        assert abs(counts[source] - length * weight / sum(weights)) < 1
        assert counts[source] == apportion(weights, length)[source]


@settings(deadline=None, max_examples=40)
@given(SIZES, st.integers(4, 40), st.integers(0, 5))
def test_no_sample_comes_again_before_all_others_have(sizes: list[int], length: int, seed: int) -> None:
    mix = mixed(sizes, [1.0] * len(sizes), length, seed)
    drawn: dict[int, list[int]] = {source: [] for source in range(len(sizes))}
    for epoch in range(4):
        for source, index in epoch_of(mix, epoch):
            drawn[source].append(index)
    for source, indices in drawn.items():
        for start in range(0, len(indices) - sizes[source] + 1, sizes[source]):
            assert sorted(indices[start : start + sizes[source]]) == list(range(sizes[source]))


def test_by_size_an_epoch_is_everything_once() -> None:
    mix = mixed([3, 5])
    for epoch in range(3):
        assert sorted(epoch_of(mix, epoch)) == [(0, i) for i in range(3)] + [(1, i) for i in range(5)]


def test_a_function_of_seed_epoch_and_position_alone() -> None:
    first, second = mixed([50, 7], [1, 3], seed=4), mixed([50, 7], [1, 3], seed=4)
    keys = [(epoch, position) for epoch in range(5) for position in range(len(first))]
    shuffled = np.random.default_rng(0).permutation(len(keys))
    there = {keys[i]: second.at(*keys[i]) for i in shuffled}
    assert all(first.at(*key) == there[key] for key in keys)
    assert epoch_of(first, 0) != epoch_of(first, 1)
    assert epoch_of(first, 0) != epoch_of(mixed([50, 7], [1, 3], seed=5), 0)


def test_sources_of_one_size_have_orders_of_their_own() -> None:
    drawn = epoch_of(mixed([40, 40]), 0)
    assert [i for source, i in drawn if source == 0] != [i for source, i in drawn if source == 1]


@pytest.mark.parametrize(
    ("sizes", "weights", "length"),
    [
        ([], None, None),
        ([3, 0], None, None),
        ([3], [1, 2], None),
        ([3], [0], None),
        ([3], [np.nan], None),
        ([3], None, 0),
    ],
)
def test_what_cannot_be_meant(sizes: list[int], weights: list[float] | None, length: int | None) -> None:
    with pytest.raises(OptionError):
        mixed(sizes, weights or (), length)


def test_positions_end() -> None:
    with pytest.raises(IndexError, match="position 3 of 3"):
        mixed([3]).at(0, 3)


def named(name: str, count: int) -> ReferList:
    pixels = np.zeros((4, 4, 3), np.uint8)
    samples = [ReferSample(pixels, (4, 4), (Expression((f"{name} {i}",), ()),), i, name) for i in range(count)]
    return ReferList(tuple(samples), name)


def test_a_mix_is_a_data_set_that_loading_draws_anew_each_epoch() -> None:
    mix = Joined([named("a", 2), named("b", 9)], Mixture.of([2, 9], [1, 1], length=8, seed=3))
    assert isinstance(mix, ReferDataset)
    assert (mix.name, len(mix)) == ("a + b", 8)
    assert Counter(mix[i].source for i in range(8)) == {"a": 4, "b": 4}
    questions = QuestionDataset(mix, max_masks=1, seed=3)
    seen = []
    for epoch in range(3):
        keys = [key for batch in epoch_batches(len(mix), 3, epoch, seed=3) for key in batch]
        asked = [questions[key] for key in keys]
        assert Counter(q.sample.source for q in asked) == {"a": 4, "b": 4}  # type: ignore[union-attr]
        seen += [q.sample.image_id for q in asked if q.sample.source == "b"]  # type: ignore[union-attr]
    assert len(set(seen)) == 9, "twelve draws of nine samples see them all"


def test_workers_can_hold_it(tmp_path: Path) -> None:
    import pickle

    mix = Joined([named("a", 2), named("b", 9)], Mixture.of([2, 9], [1, 2]))
    again = pickle.loads(pickle.dumps(mix))  # noqa: S301
    assert [again.at(2, i).source for i in range(11)] == [mix.at(2, i).source for i in range(11)]
