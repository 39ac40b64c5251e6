"""Splitting: copies of a picture stay on one side, the rest is shared out by the seed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from deixis.data.formats import read_dataset
from deixis.data.sets.split import duplicate_groups, hold_out
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.records import Instances, Sample, SampleList, Vocabulary

THINGS = Vocabulary(("thing",))


def picture(seed: int, size_hw: tuple[int, int] = (90, 120)) -> np.ndarray:
    """Smooth coloured blobs, as different from seed to seed as photographs are."""
    blobs = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(blobs, size_hw[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def split_by_group(dataset: SampleList, fraction: float = 0.8, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """Positions of both sides: what is left, and what is held out."""
    groups = [[(0, index) for index in group] for group in duplicate_groups(dataset)]
    return hold_out(groups, [dataset.name], [len(dataset)], [1 - fraction], seed)[0]


def in_memory(pictures: list[np.ndarray]) -> SampleList:
    samples = tuple(
        Sample(pixels, (pixels.shape[0], pixels.shape[1]), Instances.none(), THINGS, number)
        for number, pixels in enumerate(pictures)
    )
    return SampleList(samples, THINGS, "pictures")


def test_different_pictures_are_groups_of_their_own() -> None:
    assert duplicate_groups(in_memory([picture(seed) for seed in range(40)])) == [[i] for i in range(40)]


def test_the_same_pixels_are_one_group() -> None:
    assert duplicate_groups(in_memory([picture(0), picture(1), picture(0), picture(0)])) == [[0, 2, 3], [1]]


def test_the_same_bytes_in_files_are_one_group(tmp_path: Path) -> None:
    samples = []
    for number, seed in enumerate([4, 5, 4]):
        Image.fromarray(picture(seed)).save(tmp_path / f"{number}.png")
        samples.append(Sample(tmp_path / f"{number}.png", (90, 120), Instances.none(), THINGS))
    assert duplicate_groups(SampleList(tuple(samples), THINGS)) == [[0, 2], [1]]


def changed(kind: str) -> np.ndarray:
    original = picture(3)
    if kind == "smaller":
        return np.asarray(cv2.resize(original, (80, 60), interpolation=cv2.INTER_AREA), np.uint8)
    if kind == "brighter":
        return np.clip(original.astype(int) + 4, 0, 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(-6, 7, original.shape)
    return np.clip(original + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["smaller", "brighter", "noisy"])
def test_near_copies_are_one_group(kind: str) -> None:
    assert duplicate_groups(in_memory([picture(2), picture(3), changed(kind)])) == [[0], [1, 2]]


def test_a_chain_of_near_copies_is_one_group() -> None:
    steps = [np.clip(picture(3).astype(int) + 6 * i, 0, 255).astype(np.uint8) for i in (0, 2, 1)]
    assert duplicate_groups(in_memory([steps[0], steps[1]])) == [[0], [1]]
    assert duplicate_groups(in_memory(steps)) == [[0, 1, 2]]


def test_plain_pictures_of_different_colour_are_not_copies() -> None:
    """Their difference hashes are all zero bits."""
    plain = [np.full((20, 30, 3), level, np.uint8) for level in (0, 60, 120, 250)]
    assert duplicate_groups(in_memory(plain)) == [[0], [1], [2], [3]]


def test_sides_are_disjoint_whole_and_of_the_size_asked_for() -> None:
    dataset = in_memory([picture(seed // 2) for seed in range(40)])  # every picture twice
    train, validation = split_by_group(dataset, 0.8, seed=0)
    assert (len(train), len(validation)) == (32, 8)
    assert sorted(train + validation) == list(range(40))
    assert {i // 2 for i in train}.isdisjoint(i // 2 for i in validation)
    assert list(train) == sorted(train)


def test_the_seed_decides() -> None:
    dataset = in_memory([picture(seed) for seed in range(20)])
    first, again, other = (split_by_group(dataset, 0.8, seed)[1] for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_neither_side_is_ever_empty(fraction: float) -> None:
    for pictures in ([picture(0), picture(1)], [picture(0)] * 5 + [picture(1)] * 4):
        for seed in range(6):
            assert all(len(side) for side in split_by_group(in_memory(pictures), fraction, seed))


def test_what_cannot_be_split() -> None:
    with pytest.raises(DataError, match="3 images in 1 groups of duplicates cannot be split"):
        split_by_group(in_memory([picture(0)] * 3))


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    bad = Sample(tmp_path / "bad.jpg", (5, 5), Instances.none(), THINGS)
    with pytest.raises(DataError, match=r"bad\.jpg"):
        split_by_group(SampleList((bad, bad), THINGS))


def test_a_subset_reads_only_what_is_asked_for() -> None:
    dataset = in_memory([picture(seed) for seed in range(4)])
    subset = Subset(dataset, (3, 1))
    assert [subset[i].image_id for i in range(len(subset))] == [3, 1]


def test_raccoons_known_copies_stay_together(shared_data: Path) -> None:
    dataset = read_dataset(shared_data / "raccoon_voc")
    numbers = [Path(str(dataset[i].image)).stem.removeprefix("raccoon-") for i in range(len(dataset))]
    groups = {frozenset(numbers[i] for i in group) for group in duplicate_groups(dataset) if len(group) > 1}
    identical = [{"11", "116"}, {"83", "120"}, {"52", "74"}, {"65", "98"}]
    assert all(any(pair <= group for group in groups) for pair in identical)
    assert groups == {
        frozenset(g)
        for g in ({"11", "116"}, {"83", "120"}, {"50", "52", "74"}, {"65", "98"}, {"21", "45"}, {"51", "85"})
    }
    train, validation = split_by_group(dataset, 0.8, seed=0)
    assert (len(train), len(validation)) == (160, 40)
