"""Phrases of generated scenes mean exactly what they say."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deixis.data.scenes.images import UNSEEN_PAIRS, Thing
from deixis.data.scenes.phrases import absent_phrases, descriptions_of, phrases_for, plural
from deixis.data.scenes.refer_scenes import REFER_SPLITS, refer_scenes
from deixis.data.scenes.shapes import TEXTURES
from deixis.errors import DataError

MOONS = {"the green moon", "green moon", "the moon", "moon", "the green thing", "green thing"}


def thing(colour: str, shape: str, x: float, y: float, radius: float = 10.0, texture: str = "plain") -> Thing:
    return Thing(shape, colour, texture, (x, y), radius, 0.0)


def meanings(*things: Thing) -> dict[str, tuple[int, ...]]:
    found = phrases_for(things, np.random.default_rng(0), [("green", "moon")])
    return {text: phrase.things for phrase in found for text in phrase.texts}


def test_words_relations_sizes_and_places_by_hand() -> None:
    scene = (
        thing("red", "star", 20, 20),
        thing("blue", "star", 100, 30, radius=20),
        thing("red", "circle", 60, 90, texture="striped"),
    )
    said = meanings(*scene)
    assert said["the red star"] == said["red star"] == (0,)
    assert said["all stars"] == (0, 1)
    assert said["all red things"] == (0, 2)
    assert said["the largest star"] == (1,)
    assert said["the smallest star"] == (0,)
    assert said["the leftmost star"] == (0,)
    assert said["the striped circle"] == (2,)
    assert said["the star left of the red circle"] == (0,)
    assert said["the star right of the red circle"] == (1,)
    absent = {text for text, things in said.items() if not things}
    assert len(absent) in (2, 4)  # one name or two, each with and without its article
    assert absent <= MOONS
    # Both stars are above the circle, and neither is clearly above the other: no phrase may pretend otherwise.
    assert "the star above the red circle" not in said
    assert "the topmost star" not in said


def test_descriptions_say_all_and_fit_one_thing_alone() -> None:
    scene = (
        thing("red", "star", 20, 20, radius=10),
        thing("red", "star", 60, 20, radius=30),
        thing("red", "star", 60, 90, radius=18),  # neither small nor large: all three are red stars
        thing("blue", "circle", 100, 20, radius=18, texture="striped"),
        thing("green", "moon", 100, 90, radius=30, texture="dotted"),
        thing("green", "moon", 30, 90, radius=30, texture="dotted"),
    )
    found = {phrase.texts: (phrase.things, phrase.tags) for phrase in descriptions_of(scene)}
    assert found == {("the blue striped circle",): ((3,), ("description",))}
    without = {phrase.texts[0]: phrase.things for phrase in descriptions_of((*scene[:2], *scene[3:5]))}
    assert without == {
        "the small red star": (0,),
        "the large red star": (1,),
        "the blue striped circle": (2,),
        "the large green dotted moon": (3,),
    }


def test_names_and_descriptions_have_splits_of_their_own() -> None:
    for split, tags in (("refer_names", {"attribute", "several", "absent"}), ("refer_described", {"description"})):
        samples = [refer_scenes(split, 40, 0)[i] for i in range(40)]
        assert all(sample.expressions for sample in samples)
        said = [tag for sample in samples for expression in sample.expressions for tag in expression.tags]
        assert set(said) >= tags
        assert not {"relation", "place", "size"} & set(said)


def test_a_lone_thing_has_no_relation_and_no_superlative() -> None:
    said = meanings(thing("red", "star", 20, 20))
    assert set(said) - MOONS == {"the red star", "red star", "the star", "star", "the red thing", "red thing"}


def test_the_form_of_a_name_does_not_tell_whether_it_is_there() -> None:
    """A colour and shape, a shape, a colour: each names what is there and what is not."""
    dataset = refer_scenes("refer_names", 60, 3)
    forms: dict[str, list[bool]] = {"pair": [], "shape": [], "colour": []}
    for index in range(60):
        for expression in dataset[index].expressions:
            words = expression.texts[-1].removeprefix("the ").split()
            if "several" not in expression.tags and words[0] not in TEXTURES:
                form = "shape" if len(words) == 1 else "colour" if words[1] == "thing" else "pair"
                forms[form].append("absent" in expression.tags)
    assert all(0.1 < np.mean(absent) < 0.6 for absent in forms.values()), {k: np.mean(v) for k, v in forms.items()}


def test_nothing_that_is_said_to_be_absent_is_there() -> None:
    pairs = [(colour, shape) for colour in ("red", "green") for shape in ("star", "moon")]
    scene = (thing("red", "star", 20, 20), thing("green", "star", 60, 20))
    for seed in range(30):
        absent = {phrase.texts[1] for phrase in absent_phrases(scene, np.random.default_rng(seed), pairs)}
        assert absent <= {"red moon", "green moon", "moon"}


def test_an_anchor_that_could_be_two_things_is_never_named() -> None:
    said = meanings(thing("red", "star", 20, 20), thing("red", "star", 100, 20), thing("blue", "star", 60, 90))
    assert not any("red star" in text.split(" the ", 2)[-1] for text in said if " of the " in text)


@pytest.mark.parametrize("split", REFER_SPLITS)
def test_scenes_are_a_function_of_their_place_and_masks_fit(split: str) -> None:
    data = refer_scenes(split, 12, seed=5)
    for index in range(len(data)):
        sample, again = data[index], data[index]
        assert np.array_equal(sample.image, again.image)
        assert [e.texts for e in sample.expressions] == [e.texts for e in again.expressions]
        assert sample.expressions
        for expression in sample.expressions:
            assert bool(expression.masks_rle) != ("absent" in expression.tags)
            assert all(coco_mask.area(mask) > 0 for mask in expression.masks_rle)


def test_training_never_names_an_unseen_pair_and_the_unseen_split_does() -> None:
    unseen = {" ".join(pair) for pair in UNSEEN_PAIRS}

    def named(split: str) -> set[str]:
        data = refer_scenes(split, 60, seed=1)
        texts = [text for i in range(60) for e in data[i].expressions for text in e.texts]
        return {name for name in unseen if any(name in text for text in texts)}

    assert not named("refer_train")
    assert len(named("refer_unseen")) > 10
    tagged = [
        e for i in range(60) for e in refer_scenes("refer_unseen", 60, 1)[i].expressions if "unseen pair" in e.tags
    ]
    assert all(any(name in text for name in unseen) for e in tagged for text in e.texts)


def test_demo_shapes_are_new() -> None:
    texts = [t for i in range(20) for e in refer_scenes("refer_demo_train", 20, 1)[i].expressions for t in e.texts]
    assert any("gear" in text for text in texts)
    assert not any("star" in text for text in texts)


def test_plurals() -> None:
    assert [plural(word) for word in ("star", "cross", "fish")] == ["stars", "crosses", "fish"]


@pytest.mark.parametrize(("split", "count"), [("refer_trian", 3), ("refer_train", 0)])
def test_impossible_scenes_are_refused(split: str, count: int) -> None:
    with pytest.raises(DataError):
        refer_scenes(split, count, 0)
