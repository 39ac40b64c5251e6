"""Generated scenes: endless pictures of named things, with exact boxes and masks.

A scene is a function of (split, seed, index) and nothing else. Words are a colour and a shape, a shape alone, or a
texture and a shape; one scheme a scene, so every object has exactly one right name.

Splits:
    pretrain      known shapes, colour-shape pairs that are not held out; every scene brings its own prompt: the
                  names it shows and some it does not
    seen_pairs    known words in pairs that `pretrain` shows; one vocabulary for all scenes
    unseen_pairs  known words in pairs that `pretrain` never shows; one vocabulary for all scenes
    demo_train, demo_val   shapes and names that `pretrain` never shows; one vocabulary for all scenes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from deixis.data.scenes.shapes import (
    COLOURS_RGB,
    DEFAULT_TURN_LIMIT_DEG,
    KNOWN_SHAPES,
    NEW_SHAPES,
    TEXTURES,
    TURN_LIMIT_DEG,
    Window,
    background,
    coverage,
    outline_of,
    paint,
)
from deixis.errors import DataError
from deixis.geometry.masks import box_of_mask
from deixis.geometry.rle import bitmap_rle
from deixis.records import Instances, Sample, Vocabulary

SPLITS = ("pretrain", "seen_pairs", "unseen_pairs", "demo_train", "demo_val")
CANVAS_SIZES_HW = ((128, 128), (128, 128), (128, 160), (160, 128))
MAX_THINGS = 6
MIN_VISIBLE = 0.85  # of a thing's own area, after those drawn over it
SMALLEST_RADIUS_PX = 10.0
SMALLEST_TEXTURED_RADIUS_PX = 14.0  # below it, stripes and dots cannot be told apart

_ALL_PAIRS = tuple((colour, shape) for colour in COLOURS_RGB for shape in KNOWN_SHAPES)
# Every colour and every shape loses two of its ten pairs, so each word stays well known.
UNSEEN_PAIRS = tuple(
    pair for pair in _ALL_PAIRS if (2 * tuple(COLOURS_RGB).index(pair[0]) + tuple(KNOWN_SHAPES).index(pair[1])) % 5 == 0
)
SEEN_PAIRS = tuple(pair for pair in _ALL_PAIRS if pair not in UNSEEN_PAIRS)


@dataclass(frozen=True)
class Thing:
    """One drawn object: its words, and where it is."""

    shape: str
    colour: str
    texture: str
    centre_xy_px: tuple[float, float]
    radius_px: float
    turn_deg: float


@dataclass(frozen=True)
class Scene:
    """A picture with its things and the visible mask of each."""

    pixels: UInt8[np.ndarray, "h w 3"]
    things: tuple[Thing, ...]
    masks: Bool[np.ndarray, "n h w"]


@dataclass(frozen=True)
class SceneDataset:
    """Scenes by position. Holds no pictures: each is drawn when it is asked for."""

    split: str
    count: int
    seed: int

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The names that the split can show."""
        if self.split.startswith("demo"):
            return Vocabulary(tuple(NEW_SHAPES))
        pairs = UNSEEN_PAIRS if self.split == "unseen_pairs" else SEEN_PAIRS
        if self.split == "seen_pairs":
            pairs = SEEN_PAIRS[:: len(SEEN_PAIRS) // len(UNSEEN_PAIRS)]
        return Vocabulary(tuple(" ".join(pair) for pair in pairs))

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"scenes:split={self.split},count={self.count},seed={self.seed}"

    def __len__(self) -> int:
        return self.count

    def size_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of a scene in pixels, without drawing it."""
        # a stream of its own: the size is known without drawing
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index, 1])
        return CANVAS_SIZES_HW[int(rng.integers(len(CANVAS_SIZES_HW)))]

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        size_hw = self.size_hw(index)
        if self.split == "pretrain":
            scheme = str(rng.choice(["colour", "shape", "texture"], p=[0.7, 0.15, 0.15]))
            kinds = SEEN_PAIRS
        elif self.split.startswith("demo"):
            scheme = "shape"
            kinds = tuple((colour, shape) for colour in COLOURS_RGB for shape in NEW_SHAPES)
        else:
            scheme = "colour"
            kinds = tuple((name.split()[0], name.split()[1]) for name in self.vocabulary.names)
        scene = draw_scene(size_hw, kinds, rng, plain=0.5 if scheme == "texture" else 0.7)
        names = [name_of(thing, scheme) for thing in scene.things]
        vocabulary = self.vocabulary if self.split != "pretrain" else _prompt_for(names, scheme, rng)
        instances = Instances.build(
            [box_of_mask(mask) for mask in scene.masks],
            [vocabulary.names.index(name) for name in names],
            areas_px=scene.masks.sum((1, 2)),
            masks_rle=[bitmap_rle(mask) for mask in scene.masks],
        )
        return Sample(
            scene.pixels, size_hw, instances, vocabulary, image_id=index, source=f"{self.name}: scene {index}"
        )


def scene_words() -> tuple[str, ...]:
    """Every word that names are made of before a demonstration brings new ones."""
    return (*COLOURS_RGB, *KNOWN_SHAPES, *TEXTURES)


def scenes(split: str, count: int, seed: int) -> SceneDataset:
    """A data set of generated scenes.

    Raises:
        DataError: a split that does not exist, or no scenes.
    """
    require_split("scenes", split, SPLITS, count)
    return SceneDataset(split, count, seed)


def require_split(kind: str, split: str, splits: Sequence[str], count: int) -> None:
    """Raises DataError for a split that generated data does not have, or for none of it."""
    if split not in splits:
        raise DataError(f"{kind} have no split {split!r}; choose one of {', '.join(splits)}")
    if count < 1:
        raise DataError(f"scenes: count must be at least 1, got {count}")


def name_of(thing: Thing, scheme: str) -> str:
    """The one right name of a thing under a scene's naming scheme: `red star`, `star` or `striped star`."""
    return {
        "colour": f"{thing.colour} {thing.shape}",
        "shape": thing.shape,
        "texture": f"{thing.texture} {thing.shape}",
    }[scheme]


def draw_scene(
    size_hw: tuple[int, int], kinds: tuple[tuple[str, str], ...], rng: np.random.Generator, plain: float
) -> Scene:
    """A scene of 1 to `MAX_THINGS` things of the given (colour, shape) kinds; `plain` is the share without texture."""
    pixels = background(size_hw, rng).astype(np.float32)
    things: list[Thing] = []
    masks: list[np.ndarray] = []
    wanted = int(rng.integers(1, MAX_THINGS + 1))
    for _ in range(8 * wanted):  # tries: what would hide others is not placed
        if len(things) == wanted:
            break
        thing = _place(kinds[int(rng.integers(len(kinds)))], size_hw, rng, plain)
        window = Window.around(thing.centre_xy_px, thing.radius_px, size_hw)
        alpha = coverage(outline_of(thing.shape), thing.centre_xy_px, thing.radius_px, thing.turn_deg, window)
        mask = np.zeros(size_hw, bool)
        mask[window.slices] = alpha >= 0.5
        if not _leaves_visible(mask, thing, masks, things):
            continue
        colour = np.clip(np.array(COLOURS_RGB[thing.colour]) * rng.uniform(0.88, 1.06) + rng.normal(0, 6, 3), 0, 255)
        period_px = max(4.0, thing.radius_px * rng.uniform(0.35, 0.55))
        surface = paint(thing.texture, colour, window.size_hw, period_px, rng)
        # alpha blending: edges are smooth, masks cut at half
        pixels[window.slices] += alpha[..., None] * (surface - pixels[window.slices])
        masks = [earlier & ~mask for earlier in masks]  # later things lie on top
        masks.append(mask)
        things.append(thing)
    if rng.random() < 0.3:
        pixels = cv2.GaussianBlur(pixels, (3, 3), rng.uniform(0.3, 0.8))
    exposed = pixels * rng.uniform(0.85, 1.1) + rng.normal(0, rng.uniform(0, 5), pixels.shape)
    return Scene(np.clip(exposed, 0, 255).astype(np.uint8), tuple(things), np.stack(masks))


def _place(kind: tuple[str, str], size_hw: tuple[int, int], rng: np.random.Generator, plain: float) -> Thing:
    """A thing of a kind, wholly inside the picture."""
    height, width = size_hw
    largest = 0.3 * min(size_hw)
    textured = rng.random() >= plain
    smallest = SMALLEST_TEXTURED_RADIUS_PX if textured else SMALLEST_RADIUS_PX
    radius = smallest * (largest / smallest) ** rng.random()  # log-uniform: small things are as frequent as large ones
    limit = TURN_LIMIT_DEG.get(kind[1], DEFAULT_TURN_LIMIT_DEG)
    return Thing(
        shape=kind[1],
        colour=kind[0],
        texture=str(rng.choice(TEXTURES[1:])) if textured else "plain",
        centre_xy_px=(rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)),
        radius_px=radius,
        turn_deg=rng.uniform(-limit, limit),
    )


def _leaves_visible(mask: Bool[np.ndarray, "h w"], thing: Thing, masks: list[np.ndarray], things: list[Thing]) -> bool:
    """Whether every thing drawn so far stays mostly visible under one more, and no two lie on one spot."""
    for earlier_mask, earlier in zip(masks, things, strict=True):
        apart = np.hypot(*np.subtract(thing.centre_xy_px, earlier.centre_xy_px))
        if apart < 0.8 * max(earlier.radius_px, thing.radius_px):
            return False
        area = np.count_nonzero(earlier_mask)
        if np.count_nonzero(earlier_mask & ~mask) < MIN_VISIBLE * area:
            return False
    return True


def _prompt_for(names: list[str], scheme: str, rng: np.random.Generator) -> Vocabulary:
    """The names a scene shows, and names it does not, in random order."""
    if scheme == "shape":
        possible = list(KNOWN_SHAPES)
    elif scheme == "texture":
        possible = [f"{texture} {shape}" for texture in TEXTURES for shape in KNOWN_SHAPES]
    else:
        possible = [" ".join(pair) for pair in SEEN_PAIRS]
    shown = sorted(set(names))
    absent = [name for name in possible if name not in shown]
    count = min(int(rng.integers(2, 14)), len(absent))
    chosen = shown + [absent[i] for i in rng.permutation(len(absent))[:count]]
    return Vocabulary(tuple(chosen[i] for i in rng.permutation(len(chosen))))
