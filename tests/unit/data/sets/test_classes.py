"""Classes chosen, left out, renamed and merged: what is asked for, and what an image judges afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deixis.data.findings import Findings
from deixis.data.sets.class_names import settle_names
from deixis.data.sets.classes import with_classes
from deixis.data.sets.embedded import EmbeddedDataset, record_of
from deixis.data.sets.split import sampled
from deixis.data.sets.subset import Subset
from deixis.errors import DataError, OptionError
from deixis.records import Dataset, Instances, Sample, SampleList, Vocabulary

NAMES = ("cat", "dog", "car", "bus")


def sample(class_ids: list[int], image_id: int = 1, names: tuple[str, ...] = NAMES, **more: Any) -> Sample:
    boxes = [[0, 0, 4 + i, 5] for i in range(len(class_ids))]  # 20, 25, 30, ... square pixels
    found = Instances.build(boxes, class_ids, scores=more.pop("scores", None))
    return Sample(Path(f"{image_id}.jpg"), (20, 20), found, Vocabulary(names), image_id, f"image {image_id}", **more)


def data(*samples: Sample) -> SampleList:
    return SampleList(samples, Vocabulary(NAMES, (1, 7, 3, 9)), "labels")


def names_of(dataset: Dataset, index: int = 0) -> list[str]:
    found = dataset[index]
    return [found.vocabulary.names[i] for i in found.instances.class_ids]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {name: name for name in NAMES}),
        ({"keep": ["dog,cat"]}, {"dog": "dog", "cat": "cat"}),
        ({"keep": ["dog", "cat"]}, {"dog": "dog", "cat": "cat"}),
        ({"drop": ["cat", "bus"]}, {"dog": "dog", "car": "car"}),
        ({"rename": ["cat=kitten"]}, {"cat": "kitten", "dog": "dog", "car": "car", "bus": "bus"}),
        ({"rename": ["cat=dog", "dog=cat"], "keep": ["cat"]}, {"dog": "cat"}),
        ({"rename": ["cat=a,dog=b"], "drop": ["car,bus"]}, {"cat": "a", "dog": "b"}),
        ({"rename": ["car=vehicle", "bus=vehicle"], "keep": ["vehicle"]}, {"car": "vehicle", "bus": "vehicle"}),
        ({"merge": ["car,bus=vehicle"], "keep": ["vehicle,cat"]}, {"car": "vehicle", "bus": "vehicle", "cat": "cat"}),
        ({"merge": ["car, bus = bus"], "drop": ["cat", "dog"]}, {"car": "bus", "bus": "bus"}),
        ({"rename": ["car=auto"], "merge": ["auto,bus=vehicle"]}, None),
        ({"merge": ["car,bus=vehicle"], "keep": ["bus"]}, {"car": "vehicle", "bus": "vehicle"}),
    ],
)
def test_what_is_typed_becomes_old_names_and_new_ones(options: dict[str, Any], expected: Any) -> None:
    if expected is None:
        with pytest.raises(OptionError, match="'car' is to become 'auto' too; give it one name"):
            settle_names(NAMES, **options)
    else:
        assert settle_names(NAMES, **options) == expected
        assert list(settle_names(NAMES, **options)) == list(expected), "and in this order"


def test_names_with_commas_and_equal_signs() -> None:
    names = ("cup, red", "a=b", "c")
    assert settle_names(names, keep=["cup, red"]) == {"cup, red": "cup, red"}
    assert settle_names(names, rename=["a=b=d"], keep=["d"]) == {"a=b": "d"}
    assert settle_names(names, merge=["cup, red=x", "c=x"], keep=["x"]) == {"cup, red": "x", "c": "x"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"keep": ["Cat"]},
            r"--classes: no class 'Cat' in labels; did you mean 'cat'\? Its classes: cat, dog, car, bus",
        ),
        ({"drop": ["zebra"]}, r"--drop: no class 'zebra' in labels; its classes: cat, dog, car, bus"),
        ({"rename": ["dgo=hound"]}, r"--rename 'dgo=hound': no class 'dgo' in labels; did you mean 'dog'\?"),
        ({"rename": ["dog"]}, r"--rename: expected OLD=NEW, got 'dog'"),
        ({"merge": ["car,bus="]}, r"--merge: expected OLD=NEW, got 'car,bus='"),
        ({"merge": ["car,vam=x"]}, r"--merge 'car,vam=x': no class 'vam' in labels"),
        ({"keep": ["cat"], "drop": ["cat"]}, r"--classes and --drop both name 'cat'; choose one of them"),
        ({"drop": list(NAMES)}, r"--drop: no class of labels is left; it has cat, dog, car, bus"),
    ],
)
def test_a_name_of_no_class_is_an_error_that_names_the_nearest(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        settle_names(NAMES, where="labels", **options)


def test_objects_follow_their_classes_and_ids_stay() -> None:
    before = data(sample([0, 1, 2, 3]), sample([1], 2))
    used = settle_names(NAMES, merge=["car,bus=vehicle"], rename=["cat=kitten"], drop=["dog"])
    after, lines = with_classes(before, used)
    assert after.vocabulary == Vocabulary(("kitten", "vehicle"), (1, 3))
    assert names_of(after) == ["kitten", "vehicle", "vehicle"]
    assert after[0].instances.boxes_xyxy_px[:, 2].tolist() == [4, 6, 7]
    assert len(after[1].instances) == 0
    assert after[1].known_absent_class_ids == {0, 1}, "all of it was annotated, so nothing of it is there"
    assert lines == [
        "left out 1 classes with 2 objects: dog (2)",
        "renamed 'cat' to 'kitten': 1 objects",
        "merged 'car', 'bus' into 'vehicle': 2 objects",
        "1 images have no object left; they stay, as images without objects",
    ]
    merged, _ = with_classes(before, settle_names(NAMES, merge=["cat,bus=bus"]))
    assert merged.vocabulary == Vocabulary(("bus", "dog", "car"), (9, 7, 3)), "bus keeps its id"
    turned, _ = with_classes(before, settle_names(NAMES, keep=["bus", "cat"]))
    assert turned.vocabulary.names == ("bus", "cat")
    assert names_of(turned) == ["cat", "bus"]


def test_a_merged_class_is_absent_only_where_all_of_it_is() -> None:
    used = settle_names(NAMES, merge=["car,bus=vehicle"])
    absent = [frozenset({2, 3}), frozenset({2}), frozenset(), frozenset({3})]
    found = [[0], [0], [0], [2]]
    before = data(*(sample(ids, i, absent_class_ids=a) for i, (ids, a) in enumerate(zip(found, absent, strict=True))))
    after, _ = with_classes(before, used)
    vehicle = after.vocabulary.names.index("vehicle")
    judged = [one.judges(vehicle) for one in (after[i] for i in range(4))]
    assert judged == [True, False, False, True]
    assert [vehicle in after[i].known_absent_class_ids for i in range(4)] == [True, False, False, False]
    unsure = data(sample([2], absent_class_ids=frozenset()))  # a car, and nobody looked for buses
    merged = with_classes(unsure, used)[0][0]
    assert merged.not_exhaustive_class_ids == {vehicle}
    partly = data(sample([2], not_exhaustive_class_ids=frozenset({3})))
    assert with_classes(partly, used)[0][0].not_exhaustive_class_ids == {vehicle}
    assert with_classes(partly, settle_names(NAMES, drop=["bus"]))[0][0].not_exhaustive_class_ids == frozenset()


def test_an_image_without_its_small_objects_does_not_judge_their_classes() -> None:
    after, lines = with_classes(data(sample([0, 1, 0, 2])), min_area_px=27)  # areas 20, 25, 30, 35
    assert names_of(after) == ["cat", "car"]
    assert not after[0].judges(0), "a small cat is there"
    assert not after[0].judges(1), "a small dog is there"
    assert after[0].judges(2)
    assert after[0].known_absent_class_ids == {3}
    assert lines == ["left out 2 objects smaller than 27 square pixels: cat (1), dog (1)"]


def test_detections_above_a_score() -> None:
    predictions = data(sample([0, 1, 2], scores=[0.9, 0.4, 0.5]))
    after, lines = with_classes(predictions, min_score=0.5)
    assert names_of(after) == ["cat", "car"]
    assert after[0].instances.scores is not None
    assert after[0].instances.scores.tolist() == [0.9, 0.5]
    assert after[0].known_absent_class_ids == {1, 3}
    assert lines == ["left out 1 objects that score below 0.5; 2 are left"]


def test_names_of_single_images() -> None:
    spans = (((0, 3),), ((9, 12),))
    first = sample([0, 1], names=("cat", "car"), caption="cat in a car", phrase_spans=spans)
    before = data(first, sample([0], 2, names=("bus",)))
    after, lines = with_classes(before, settle_names(NAMES, keep=["cat"]))
    assert after[0].vocabulary.names == ("cat",)
    assert after[0].caption == ""
    assert after[1].vocabulary.names == ("cat",)
    assert after[1].known_absent_class_ids == frozenset(), "nobody asked for a cat there"
    assert lines[-1] == "left out the sentences of 1 images, whose names have changed"
    same, _ = with_classes(before, settle_names(NAMES, keep=["cat,car,bus"]))
    assert same[0].caption == "cat in a car"


def test_a_data_set_without_any_of_the_classes() -> None:
    with pytest.raises(DataError, match="labels: has none of the classes train, only cat, dog, car, bus"):
        with_classes(data(sample([0])), {"train": "train"})


def test_places_of_objects_stay_in_step() -> None:
    findings = Findings(object_places={"image 1": ["a", "b", "c"]})
    with_classes(data(sample([0, 1, 2])), settle_names(NAMES, drop=["dog"]), findings=findings)
    assert findings.object_places["image 1"] == ["a", "c"]


def test_embedded_and_partial_data_sets_stay_what_they_are() -> None:
    before = data(sample([0, 1]), sample([1], 2))
    embedded = EmbeddedDataset(before.samples, before.vocabulary, "inside", lambda index: None)
    used = settle_names(NAMES, keep=["cat"])
    assert isinstance(with_classes(embedded, used)[0], EmbeddedDataset)
    part, _ = with_classes(Subset(embedded, (1, 0)), used)
    assert [len(record_of(part, i).instances) for i in range(2)] == [0, 1]


def many() -> SampleList:
    """Forty images of cats, four of dogs, one with a bus and a cat, and five without objects."""
    kinds = [[0]] * 40 + [[1]] * 4 + [[0, 3]] + [[]] * 5
    return data(*(sample(ids, number) for number, ids in enumerate(kinds)))


def test_a_sample_has_every_class_in_it() -> None:
    part = sampled(many(), 10, seed=3)
    assert len(part) == 10
    assert list(part.indices) == sorted(set(part.indices))
    kinds = [tuple(part[i].instances.class_ids) for i in range(10)]
    assert kinds.count(()) == 1, "a tenth of the data"
    assert kinds.count((0, 3)) == 1
    assert kinds.count((1,)) == 4
    assert kinds.count((0,)) == 4
    assert part.indices == sampled(many(), 10, seed=3).indices
    assert part.indices != sampled(many(), 10, seed=4).indices


@pytest.mark.parametrize("count", [1, 2, 49, 50, 99])
def test_a_sample_has_as_many_images_as_asked_for(count: int) -> None:
    assert len(sampled(many(), count)) == min(count, 50)
    assert len(sampled(data(*(sample([], i) for i in range(50))), count)) == min(count, 50)


def test_class_ids_are_those_of_the_new_names() -> None:
    after, _ = with_classes(data(sample([3, 2, 1])), settle_names(NAMES, keep=["bus,dog"]))
    np.testing.assert_array_equal(after[0].instances.class_ids, [0, 1])
