"""Data sets joined and drawn by weight: what an epoch shows, and that nothing of it has to be remembered."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.batching.epochs import epoch_batches
from deixis.data.detect.collate import SampleDataset
from deixis.data.detect.prompts import build_prompt
from deixis.data.detect.transforms import eval_transform, train_transform
from deixis.data.sets.mixing import Joined, Mixture
from deixis.errors import OptionError
from deixis.records import Instances, Sample, SampleList, Vocabulary


def data_set(name: str, count: int) -> SampleList:
    vocabulary = Vocabulary((name, "dog"))
    objects = Instances.build([[1, 1, 5, 5]], [0])
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    samples = [Sample(pixels, (16, 24), objects, vocabulary, i, f"{name} {i}") for i in range(count)]
    return SampleList(tuple(samples), vocabulary, name)


def letters(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    return [1, *map(ord, text), 2], [(0, 0), *((i, i + 1) for i in range(len(text))), (0, 0)]


def prompt_for(sample, generator):
    return build_prompt(sample.vocabulary.names, letters)


def test_joined_data_sets_keep_their_vocabularies():
    whole = Joined([data_set("cat", 3), data_set("bus", 1), data_set("tree", 2)])
    assert [sample.source for sample in whole] == ["cat 0", "cat 1", "cat 2", "bus 0", "tree 0", "tree 1"]
    assert whole[3].vocabulary.names == ("bus", "dog")
    assert whole.vocabulary.names == ("cat", "dog", "bus", "tree")
    assert (len(whole), whole.name) == (6, "cat + bus + tree")
    with pytest.raises(IndexError):
        whole[6]


def test_without_weights_every_sample_comes_once():
    parts = [data_set("cat", 3), data_set("bus", 5)]
    assert SampleDataset(Joined(parts), eval_transform(16, 24), prompt_for, 0).rows(4).tolist() == [*range(8)]
    assert Mixture.of((3, 5), (), 8, 0).counts == (3, 5)


@pytest.mark.parametrize(
    ("sizes", "weights", "length", "counts"),
    [
        ((10, 5), (2, 1), None, (10, 5)),
        ((5, 10), (2, 1), None, (10, 5)),
        ((100, 1), (1, 1), None, (51, 50)),
        ((7,), (3,), 2, (2,)),
        ((4, 4, 4), (1, 1, 1), 10, (4, 3, 3)),
        ((1000, 3000), (), 4, (1, 3)),
    ],
)
def test_places_of_an_epoch(sizes, weights, length, counts):
    assert Mixture.of(sizes, weights, length, 0).counts == counts


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.floats(0.5, 4)), min_size=1, max_size=4),
    st.integers(20, 60),
    st.integers(0, 5),
)
def test_shuffled_passes_go_on_from_epoch_to_epoch(parts, length, seed):
    sizes, weights = zip(*parts, strict=True)
    mixture = Mixture.of(sizes, weights, length, seed)
    starts = np.cumsum((0, *sizes))
    walks = [[] for _ in sizes]
    for epoch in range(3):
        rows = mixture.rows(epoch)
        assert len(rows) == len(mixture) == length
        which = np.searchsorted(starts, rows, side="right") - 1
        assert Counter(which.tolist()) == Counter(dict(enumerate(mixture.counts)))
        for part, walk in enumerate(walks):
            walk += (rows[which == part] - starts[part]).tolist()
    for walk, size in zip(walks, sizes, strict=True):
        for turn in range(len(walk) // size):
            assert sorted(walk[turn * size : (turn + 1) * size]) == list(range(size)), (
                "each once before any comes again"
            )


def test_an_epoch_is_a_function_of_seed_and_epoch():
    first, other = Mixture.of((50, 20), (1, 3), 40, 7), Mixture.of((50, 20), (1, 3), 40, 7)
    later = first.rows(5)
    assert np.array_equal(later, other.rows(5)), "no epoch before it is needed"
    assert not np.array_equal(later, first.rows(4))
    assert not np.array_equal(later, Mixture.of((50, 20), (1, 3), 40, 8).rows(5))


@pytest.mark.parametrize("weights", [(1,), (1, 0), (1, -1), (1, float("nan"))])
def test_impossible_weights(weights):
    with pytest.raises(OptionError, match=r"--data-weights: got .* for 2 data sets"):
        Mixture.of((3, 3), weights, None, 0)


def test_a_data_set_without_a_place_is_told():
    with pytest.raises(OptionError, match="data set 2 has no place in an epoch of 4 images"):
        Mixture.of((100, 100), (1000, 1), 4, 0)


def mixed(seed: int = 3) -> SampleDataset:
    parts = [data_set("cat", 2), data_set("bus", 9)]
    mix = Joined(parts, Mixture.of([2, 9], (3, 1), 12, seed))
    return SampleDataset(mix, train_transform([16], 24, 1.0, 0.5), prompt_for, seed)


def test_repeats_in_an_epoch_are_augmented_anew():
    dataset = mixed()
    assert len(dataset) == 12
    shown = [dataset[0, place][0] for place in range(12)]
    assert Counter(sample.source.split()[0] for sample in shown) == {"cat": 9, "bus": 3}
    same = [sample.instances.boxes_xyxy_px.tobytes() for sample in shown if sample.source == "cat 0"]
    assert len(same) >= 4
    assert len(set(same)) > 1


def test_resuming_in_the_middle_shows_what_would_have_come():
    keys = epoch_batches(12, 5, epoch=2, seed=3)

    def shown(dataset, batches):
        return [
            [(s.source, s.instances.boxes_xyxy_px.tobytes()) for s, _ in map(dataset.__getitem__, b)] for b in batches
        ]

    assert shown(mixed(), keys[1:]) == shown(mixed(), keys)[1:]


def test_each_image_is_asked_for_its_own_names():
    dataset = mixed()
    for place in range(12):
        sample, prompt = dataset[1, place]
        assert prompt.names == sample.vocabulary.names


def test_batches_are_made_when_asked_for():
    batches = epoch_batches(1_000_000, 4, 0, 0)
    assert len(batches) == 250_000
    assert not any(isinstance(value, list) for value in vars(batches).values())
    tail = batches[249_999:]
    assert (len(tail), tail[0], tail[-1]) == (1, batches[-1], batches[249_999])
    assert len(batches[250_000:]) == 0
    with pytest.raises(IndexError):
        tail[1]
