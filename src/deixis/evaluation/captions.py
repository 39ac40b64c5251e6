"""Scores of region captions: against reference captions, and in generated scenes against what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycocotools import mask as coco_mask

from deixis.data.scenes.images import Thing
from deixis.data.scenes.phrases import size_of
from deixis.data.scenes.shapes import COLOURS_RGB, KNOWN_SHAPES, NEW_SHAPES, TEXTURES
from deixis.errors import DataError
from deixis.evaluation.caption_scores import cider_d, words_of_caption
from deixis.evaluation.coco_map import without_nan
from deixis.evaluation.meteor import Meteor, corpus_meteor
from deixis.evaluation.refer_iou import size_group
from deixis.refer_records import Caption, Expression, ReferSample

SIZES = ("small", "medium", "large")
_RELATIONS = (" left of ", " right of ", " above ", " below ", " nearest to ")
_SUPERLATIVES = ("largest", "biggest", "smallest")


@dataclass(frozen=True)
class GroupCaptions:
    """The scores of a group of captions.

    Attributes:
        cider: CIDEr-D, in [0, 10].
        meteor: in [0, 1]; NaN where it was not measured.
        exact: share of captions that equal a reference, in [0, 1].
        score: mean log-probability of the captions.
        captions: how many there are.
    """

    cider: float
    meteor: float
    exact: float
    score: float
    captions: int


@dataclass(frozen=True)
class Attribute:
    """The share of captions that name an attribute, and the share of these that name the right one."""

    named: float
    right: float


@dataclass(frozen=True)
class CaptionMetrics:
    """How well regions were described; NaN where nothing could be measured.

    Attributes:
        all: every caption that has references.
        sizes: the same for COCO's small, medium and large regions.
        attributes: for generated scenes, the colour, shape, texture and size in every caption.
        captions: how many regions were described, including those without references.
        meteor_name: the metric's name: "METEOR" or "NLTK METEOR"; empty where it was not measured.
        meteor_missing: why it was not measured.
    """

    all: GroupCaptions
    sizes: dict[str, GroupCaptions]
    attributes: dict[str, Attribute]
    captions: int
    images: int
    meteor_name: str = ""
    meteor_missing: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without metrics that are NaN."""
        by_sizes = {name: _plain(group, self.meteor_name) for name, group in self.sizes.items()}
        plain = _plain(self.all, self.meteor_name) | {"by_sizes": by_sizes}
        for name, found in self.attributes.items():
            plain |= without_nan({f"{name}_named": found.named, f"{name}_right": found.right})
        return plain | {"described": self.captions, "images": self.images}


def evaluate_captions(
    truth: Sequence[ReferSample],
    captions: Sequence[Sequence[Caption]],
    things: Sequence[Sequence[Thing]] | None = None,
    *,
    with_meteor: bool = True,
) -> CaptionMetrics:
    """Score captions against the sentences of the expressions that they describe.

    A caption is exact if it equals one of them up to case and punctuation. In generated scenes a region's sentences
    are all those that describe it and nothing else, so an exact caption is true and unambiguous.

    Args:
        truth: annotated samples; their images are not read.
        captions: per sample, in order, one per expression with a non-empty mask.
        things: for generated scenes, one per expression; their attributes are then compared with the captions.
        with_meteor: measure METEOR if it is installed, which takes about 10 s.

    Raises:
        DataError: counts differ, or no region has a reference and no things are given.
    """
    pairs = [pair for sample, found in zip(truth, captions, strict=True) for pair in _paired(sample, found)]
    known = [(caption, expression.texts) for caption, expression in pairs if expression.texts]
    if not known and things is None:
        raise DataError(f"{len(pairs)} regions, none with a sentence: nothing can be measured; use other data")
    candidates, texts = [caption.text for caption, _ in known], [texts for _, texts in known]
    areas = [size_group(int(coco_mask.area(caption.mask_rle))) for caption, _ in known]
    # "": all of them
    groups = {"": range(len(known))} | {size: [i for i, of in enumerate(areas) if of == size] for size in SIZES}
    groups = {name: places for name, places in groups.items() if places}
    meteor = corpus_meteor(candidates, texts, list(groups.values())) if with_meteor and known else Meteor("", ())
    figures = dict(zip(groups, meteor.values, strict=False))  # empty where METEOR was not measured
    rows = [
        (cider, float(is_exact(text, wanted)), caption.score)
        for cider, text, wanted, (caption, _) in zip(cider_d(candidates, texts), candidates, texts, known, strict=True)
    ]
    means = {name: _mean([rows[i] for i in places], figures.get(name, math.nan)) for name, places in groups.items()}
    attributes = {}
    if things is not None:
        drawn = [thing for of_scene in things for thing in of_scene]
        attributes = _attributes([(caption.text, e.texts) for caption, e in pairs], drawn)
    return CaptionMetrics(
        means.pop("", _mean([], math.nan)),
        means,
        attributes,
        len(pairs),
        sum(bool(found) for found in captions),
        meteor.name,
        meteor.reason,
    )


def is_exact(text: str, references: Sequence[str]) -> bool:
    """Whether a caption equals one of the sentences, up to case and punctuation."""
    return words_of_caption(text) in [words_of_caption(reference) for reference in references]


def named_attributes(text: str, references: Sequence[str], thing: Thing) -> dict[str, bool | None]:
    """Whether a caption names a generated thing's colour, shape, texture and size correctly; None where it names none.

    Only words before a relation count: in "the star left of the red circle", red is not the star's colour. "Small" and
    "large" are correct unless the thing clearly has the other size; "the largest" and similar words if the caption is
    one of the reference sentences.
    """
    head = f" {' '.join(words_of_caption(text))} "  # blanks at both ends: only whole words are found
    for relation in _RELATIONS:
        head = head.split(relation)[0] + " "  # what follows is about the other thing
    found: dict[str, bool | None] = {}
    for name, words, right in (
        ("colour", COLOURS_RGB, thing.colour),
        ("shape", (*KNOWN_SHAPES, *NEW_SHAPES), thing.shape),
        ("texture", TEXTURES, thing.texture),
    ):
        named = {word for word in words if f" {word} " in head}
        found[name] = named == {right} if named else None  # who names two colours names none right
    sizes = {word for word in ("small", "large") if f" {word} " in head}
    if any(f" {word} " in head for word in _SUPERLATIVES):
        found["size"] = is_exact(text, references)
    else:
        # `size_of` is "" in between, where either word will do
        found["size"] = len(sizes) == 1 and size_of(thing) in (*sizes, "") if sizes else None
    return found


def _paired(sample: ReferSample, captions: Sequence[Caption]) -> list[tuple[Caption, Expression]]:
    regions = [e for e in sample.expressions if any(int(coco_mask.area(mask)) for mask in e.masks_rle)]
    if len(regions) != len(captions):
        raise DataError(f"{sample.source}: {len(captions)} captions for {len(regions)} regions")
    return list(zip(captions, regions, strict=True))


def _mean(rows: Sequence[tuple[float, float, float]], meteor: float) -> GroupCaptions:
    """The means of rows of (CIDEr-D, exact, score). METEOR is computed for a group as a whole."""
    cider, exact, score = (sum(row[place] for row in rows) / len(rows) if rows else math.nan for place in range(3))
    return GroupCaptions(cider, meteor, exact, score, len(rows))


def _attributes(captions: Sequence[tuple[str, Sequence[str]]], things: Sequence[Thing]) -> dict[str, Attribute]:
    found = [named_attributes(text, texts, thing) for (text, texts), thing in zip(captions, things, strict=True)]
    attributes = {}
    for name in ("colour", "shape", "texture", "size"):
        named = [right for right in (each[name] for each in found) if right is not None]
        attributes[name] = Attribute(
            len(named) / len(found) if found else math.nan, sum(named) / len(named) if named else math.nan
        )
    return attributes


def _plain(group: GroupCaptions, meteor: str) -> dict[str, Any]:
    values = {"CIDEr": group.cider, meteor: group.meteor, "exact": group.exact, "score": group.score}
    return without_nan(values | {"captions": group.captions})
