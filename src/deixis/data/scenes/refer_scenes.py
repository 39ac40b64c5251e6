"""Generated scenes with phrases: who is meant is exact, by construction.

A scene shows few shapes in few colours, so that one word alone seldom tells the things apart. Each phrase is one that
a person could use there: it means exactly the things it lists, and none that it could also mean.

Splits:
    refer_train   colour-shape pairs that are not held out (`scenes.SEEN_PAIRS`)
    refer_names   of the same kinds of scenes only names of things, and of things that are not there
    refer_described   of the same kinds of scenes only descriptions of single things: size, colour, texture, shape
    refer_places   of the same kinds of scenes only phrases that tell several things of one name apart: size, place,
        relation; of scenes without such things all phrases
    refer_seen    the same kinds of scenes, for measuring
    refer_unseen  pairs that training never shows; phrases that name such a pair are tagged `unseen pair`
    refer_demo_train, refer_demo_val   shapes that the built-in models have never seen or been told of
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deixis.data.scenes.images import CANVAS_SIZES_HW, SEEN_PAIRS, UNSEEN_PAIRS, Scene, draw_scene, require_split
from deixis.data.scenes.phrases import descriptions_of, phrases_for
from deixis.data.scenes.shapes import COLOURS_RGB, NEW_SHAPES
from deixis.geometry.rle import bitmap_rle
from deixis.refer_records import Expression, ReferSample

REFER_SPLITS = (
    *("refer_train", "refer_seen", "refer_unseen", "refer_demo_train", "refer_demo_val"),
    *("refer_names", "refer_described", "refer_places"),
)
NAMING = ("attribute", "several", "absent")
TELLING_APART = ("size", "place", "relation")
MAX_PHRASES = 6
_PLAIN_SHARE = 0.65
_ALL_NEW = tuple((colour, shape) for colour in COLOURS_RGB for shape in NEW_SHAPES)


@dataclass(frozen=True)
class ReferScenes:
    """Scenes by position. Holds no pictures: each is drawn when it is asked for."""

    split: str
    count: int
    seed: int

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"scenes:split={self.split},count={self.count},seed={self.seed}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> ReferSample:
        scene, rng = self.scene(index)
        phrases = phrases_for(scene.things, rng, self._pairs())
        if self.split in ("refer_names", "refer_described"):
            phrases = [phrase for phrase in phrases if phrase.tags[0] in NAMING]
        if self.split == "refer_described":  # names, where no thing is unlike all others
            phrases = descriptions_of(scene.things) or phrases
        if self.split == "refer_places":
            phrases = [phrase for phrase in phrases if phrase.tags[0] in TELLING_APART] or phrases
        chosen = sorted(rng.permutation(len(phrases))[:MAX_PHRASES].tolist())
        rles = [bitmap_rle(mask) for mask in scene.masks]
        expressions = []
        for position in chosen:
            phrase = phrases[position]
            unseen = any(pair in UNSEEN_PAIRS for pair in phrase.pairs)
            tags = (*phrase.tags, "unseen pair") if unseen else phrase.tags
            masks = tuple(rles[i] for i in phrase.things)
            expressions.append(Expression(phrase.texts, masks, tags, expression_id=position))
        source = f"{self.name}: scene {index}"
        return ReferSample(scene.pixels, scene.pixels.shape[:2], tuple(expressions), image_id=index, source=source)

    def things(self, index: int) -> ReferSample:
        """The scene with every thing by itself, in the order of `scene(index)[0].things`; its sentences are all those
        that mean it and nothing else, perhaps none."""
        scene, rng = self.scene(index)
        phrases = phrases_for(scene.things, rng, self._pairs()) + descriptions_of(scene.things)
        expressions = []
        for number, mask in enumerate(scene.masks):
            texts = dict.fromkeys(text for phrase in phrases if phrase.things == (number,) for text in phrase.texts)
            rle = bitmap_rle(mask)
            expressions.append(Expression(tuple(texts), (rle,), expression_id=number))
        source = f"{self.name}: scene {index}"
        return ReferSample(scene.pixels, scene.pixels.shape[:2], tuple(expressions), image_id=index, source=source)

    def scene(self, index: int) -> tuple[Scene, np.random.Generator]:
        """The picture and its things, and the generator that its phrases are drawn from next."""
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        rng = np.random.default_rng([self.seed, 100 + REFER_SPLITS.index(self.split), index])
        size_hw = CANVAS_SIZES_HW[int(rng.integers(len(CANVAS_SIZES_HW)))]
        scene = draw_scene(size_hw, few_kinds(self._pairs(), rng), rng, plain=_PLAIN_SHARE)
        return scene, rng

    def _pairs(self) -> tuple[tuple[str, str], ...]:
        if self.split.startswith("refer_demo"):
            return _ALL_NEW
        return (*UNSEEN_PAIRS, *SEEN_PAIRS) if self.split == "refer_unseen" else SEEN_PAIRS


@dataclass(frozen=True)
class SceneThings:
    """Scenes whose regions are their things; see `ReferScenes.things`."""

    scenes: ReferScenes

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.scenes.name

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int, /) -> ReferSample:
        return self.scenes.things(index)


def refer_scenes(split: str, count: int, seed: int) -> ReferScenes:
    """A data set of generated scenes with phrases.

    Raises:
        DataError: a split that does not exist, or no scenes.
    """
    require_split("scenes with phrases", split, REFER_SPLITS, count)
    return ReferScenes(split, count, seed)


def few_kinds(pairs: tuple[tuple[str, str], ...], rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
    """Some of the (colour, shape) pairs: those of two to four colours and two to four shapes."""
    while True:
        colours = rng.permutation(sorted({colour for colour, _ in pairs}))[: int(rng.integers(2, 5))]
        shapes = rng.permutation(sorted({shape for _, shape in pairs}))[: int(rng.integers(2, 5))]
        chosen = tuple(pair for pair in pairs if pair[0] in colours and pair[1] in shapes)
        if len(chosen) >= 2:
            return chosen
