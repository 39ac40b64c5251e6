"""Scores of captions, against the COCO evaluation's own numbers and by hand; attributes of generated things."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deixis.data.scenes.images import Thing
from deixis.data.scenes.refer_scenes import SceneThings, refer_scenes
from deixis.errors import DataError
from deixis.evaluation.caption_scores import cider_d
from deixis.evaluation.captions import evaluate_captions, named_attributes
from deixis.refer_records import Caption, Expression, ReferSample

CAPTIONS = ["the red star", "a man running", "a small dog", "the the the the", "blue", ""]
REFERENCES = [
    ["the red star", "red star"],
    ["a man who runs in the park", "the running man"],
    ["the large red dog on the left"],
    ["the star"],
    ["the circle"],
    ["a dog"],
]


def reference_cider_d(captions: list[str], references: list[list[str]]) -> list[float]:
    """The formula as it is printed, with loops over the vocabulary."""

    def counts(text: str, n: int) -> Counter:
        words = text.split()
        return Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))

    scores = []
    for caption, texts in zip(captions, references, strict=True):
        per_n = []
        for n in range(1, 5):
            vocabulary = {g for c in captions for g in counts(c, n)} | {
                g for r in references for t in r for g in counts(t, n)
            }
            idf = {}
            for gram in vocabulary:
                images = sum(any(gram in counts(text, n) for text in r) for r in references)
                idf[gram] = math.log(len(references) / max(1, images))
            similar = []
            for text in texts:
                ours = {g: counts(caption, n)[g] * idf[g] for g in vocabulary}
                theirs = {g: counts(text, n)[g] * idf[g] for g in vocabulary}
                norm = np.linalg.norm(list(ours.values())) * np.linalg.norm(list(theirs.values()))
                product = sum(min(ours[g], theirs[g]) * theirs[g] for g in vocabulary)
                longer = max(0, len(caption.split()) - 1) - max(0, len(text.split()) - 1)
                similar.append(product / norm * math.exp(-(longer**2) / 72) if norm else 0.0)
            per_n.append(np.mean(similar))
        scores.append(10 * float(np.mean(per_n)))
    return scores


def test_cider_d_is_the_printed_formula() -> None:
    found = cider_d(CAPTIONS, REFERENCES)
    assert found == pytest.approx(reference_cider_d(CAPTIONS, REFERENCES), abs=1e-12)
    assert found[4:] == [0, 0]
    assert found[0] > found[1] > found[2] > 0


def test_cider_d_is_coco_evaluations_number() -> None:
    """Values that pycocoevalcap 1.2 gives for these captions."""
    assert cider_d(CAPTIONS, REFERENCES) == pytest.approx(COCO_VALUES, abs=1e-9)


def test_repeating_a_good_word_does_not_help_and_case_does_not_matter() -> None:
    """Plain CIDEr rewards repetition and length; the D does not."""
    references = [["the red star"], ["a blue dog"], ["some grass"]]
    once, again = (cider_d([text, "x", "y"], references)[0] for text in ("red star", "red star red star red star"))
    assert again < once
    assert cider_d(["The RED star.", "x", "y"], references)[0] == cider_d(["the red star", "x", "y"], references)[0]


COCO_VALUES = [5.846049742852, 1.817813850479, 0.291941333056, 0.096793553632, 0.0, 0.0]


THING = Thing("star", "red", "striped", (50.0, 50.0), 20.0, 0.0)


def test_attributes_are_those_of_the_thing_not_of_its_neighbours() -> None:
    texts = ("the largest star", "the red star")
    right = {
        "the red star": (True, True, None, None),
        "the striped star": (None, True, True, None),
        "the star left of the blue circle": (None, True, None, None),
        "the blue star above the red star": (False, True, None, None),
        "Red thing.": (True, None, None, None),
        "the dotted ring": (None, False, False, None),
        "the largest star": (None, True, None, True),
        "the smallest red star": (True, True, None, False),
        "red or blue star": (False, True, None, None),
        "the large red striped star": (True, True, True, True),
        "small star": (None, True, None, False),
        "small large star": (None, True, None, False),
        "": (None, None, None, None),
    }
    for text, wanted in right.items():
        assert tuple(named_attributes(text, texts, THING).values()) == wanted, text


def region(side: int, *texts: str) -> Expression:
    mask = np.zeros((200, 200), np.uint8)
    mask[:side, :side] = 1
    return Expression(texts, (coco_mask.encode(np.asfortranarray(mask)),))


def test_metrics_by_region_size_and_what_does_not_count() -> None:
    sample = ReferSample(
        np.zeros((200, 200, 3), np.uint8), (200, 200),
        (
            region(10, "red star"), region(0, "nothing"), region(50, "blue dog"), region(100),
            Expression(("absent",), ()),
        ),
    )  # fmt: skip
    said = [
        Caption(text, -0.5, sample.expressions[i].masks_rle[0]) for i, text in ((0, "Red star."), (2, "cat"), (3, "x"))
    ]
    metrics = evaluate_captions([sample], [said], with_meteor=False)
    assert (metrics.all.captions, metrics.captions) == (2, 3)
    assert metrics.all.exact == 0.5
    assert (metrics.sizes["small"].exact, metrics.sizes["medium"].exact) == (1, 0)
    assert set(metrics.as_dict()["by_sizes"]) == {"small", "medium"}
    with pytest.raises(DataError, match="2 captions for 3 regions"):
        evaluate_captions([sample], [said[:2]], with_meteor=False)
    unnamed = sample.evolve(expressions=(region(100),))
    with pytest.raises(DataError, match="none with a sentence"):
        evaluate_captions([unnamed], [said[2:]], with_meteor=False)


def test_scenes_count_every_thing_and_true_captions_are_right() -> None:
    scenes = refer_scenes("refer_seen", 4, 5)
    samples = [SceneThings(scenes)[i] for i in range(4)]
    things = [scenes.scene(i)[0].things for i in range(4)]
    plain = [[f"the {t.colour} {t.shape}" for t in of_scene] for of_scene in things]
    said = [
        [Caption(text, -1.0, e.masks_rle[0]) for text, e in zip(texts, sample.expressions, strict=True)]
        for texts, sample in zip(plain, samples, strict=True)
    ]
    metrics = evaluate_captions(samples, said, things, with_meteor=False)
    assert metrics.attributes["colour"].right == metrics.attributes["shape"].right == 1
    assert metrics.attributes["colour"].named == 1
    assert metrics.attributes["size"].named == 0
    described = [
        [Caption(e.texts[-1] if e.texts else "thing", -1.0, e.masks_rle[0]) for e in sample.expressions]
        for sample in samples
    ]
    sized = evaluate_captions(samples, described, things, with_meteor=False)
    assert sized.all.exact == 1
    assert sized.attributes["size"].named > 0.3
    assert all(found.right == 1 for found in sized.attributes.values() if found.named)
    assert 0 < metrics.all.exact <= 1
    assert metrics.captions == sum(len(of_scene) for of_scene in things)
    wrong = [list(reversed(found)) if len({f.text for f in found}) > 1 else found for found in said]
    wrong = [
        [Caption(w.text, -1.0, s.mask_rle) for w, s in zip(of_w, of_s, strict=True)]
        for of_w, of_s in zip(wrong, said, strict=True)
    ]
    assert evaluate_captions(samples, wrong, things, with_meteor=False).all.exact < metrics.all.exact
