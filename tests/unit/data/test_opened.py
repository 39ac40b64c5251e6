"""Data sets from Python: sliced, filtered, merged, split, saved and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deixis
from deixis.data.formats.table import WRITTEN
from deixis.data.opened import OpenedDataset, opened
from deixis.errors import DataError, OptionError
from deixis.records import Instances, Sample, SampleList, Vocabulary


def made(names: tuple[str, ...], ids: list[list[int]], name: str = "made") -> OpenedDataset:
    """One image per list of class ids; boxes of 4, 5, ... pixels a side."""
    vocabulary = Vocabulary(names)
    samples = []
    for number, classes in enumerate(ids):
        pixels = np.random.default_rng(hash(name) % 100 + number).integers(0, 255, (48, 64, 3), np.uint8)
        boxes = [[2.0, 3, 6 + i, 7 + i] for i in range(len(classes))]
        instances = Instances.build(boxes, classes)
        samples.append(Sample(pixels, (48, 64), instances, vocabulary, image_id=number + 10, source=f"{name} {number}"))
    return opened(SampleList(tuple(samples), vocabulary, name))


DATA = made(("cat", "dog"), [[0, 1], [], [1], [0, 0], [1, 0]])


def labels(data: OpenedDataset) -> list[list[str]]:
    return [[one.vocabulary.names[i] for i in one.instances.class_ids] for one in data]


def test_is_indexed_and_sliced() -> None:
    assert repr(DATA) == "OpenedDataset(5 images, 2 classes: made)"
    assert DATA[-1].image_id == 14
    assert [one.image_id for one in DATA[1:4:2]] == [11, 13]
    assert [one.image_id for one in DATA[1:][[0, 3]]] == [11, 14]
    assert [one.image_id for one in DATA[np.array([True, False, False, False, True])]] == [10, 14]
    assert DATA.counts() == {"cat": 4, "dog": 3}
    with pytest.raises(IndexError):
        _ = DATA[5]


def test_is_filtered_and_renamed() -> None:
    cats = DATA.filter("cat")
    assert (cats.names, labels(cats)) == (("cat",), [["cat"], ["cat", "cat"], ["cat"]])
    assert labels(DATA.filter(["cat"], keep_empty=True)) == [["cat"], [], [], ["cat", "cat"], ["cat"]]
    assert labels(DATA.filter(min_area=20)) == [["dog"], ["cat"], ["cat"]]
    assert labels(DATA.rename({"dog": "cat"})[:1]) == [["cat", "cat"]]
    assert labels(DATA[3:].filter("dog")) == [["dog"]]
    with pytest.raises(OptionError, match=r"no class 'bird' in made; it has cat, dog"):
        DATA.filter("bird")
    with pytest.raises(OptionError, match="no class 'bird'"):
        DATA.rename({"bird": "cat"})
    assert DATA.counts() == {"cat": 4, "dog": 3}  # nothing changes in place


def test_is_merged_and_split() -> None:
    other = made(("dog", "fish"), [[1, 0], [1]], "other")
    both = DATA + other
    assert both.names == ("cat", "dog", "fish")
    assert both.counts() == {"cat": 4, "dog": 4, "fish": 2}
    assert [one.image_id for one in both] == list(range(1, 8))
    parts = both.split(val=0.3, test=0.2, seed=1)
    assert sorted(one.image_id for part in parts for one in part) == list(range(1, 8))
    assert len(parts) == 3
    assert all(len(part) for part in parts)
    assert [len(part) for part in DATA.split(0.2)] == [4, 1]
    assert len(both.sample(3)) == 3
    with pytest.raises(OptionError, match="the rest is left for training"):
        DATA.split(0.6, 0.4)


@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "createml"])
def test_is_saved_and_read_again(format: str, tmp_path: Path) -> None:
    assert format in WRITTEN
    both = DATA.filter("dog") + made(("dog", "fish"), [[1, 0]], "other")
    place = both.save(tmp_path / "out", format)
    again = deixis.read_dataset(place)
    assert isinstance(again, OpenedDataset)
    assert again.counts() == both.counts() == {"dog": 4, "fish": 1}
    with pytest.raises(DataError, match="not empty"):
        both.save(tmp_path / "out", format)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image is left"):
        DATA[:0].save(tmp_path / "none")
    with pytest.raises(DataError, match="word"):
        DATA.save(tmp_path / "word", "word")
    assert not any(tmp_path.iterdir())
