"""Generated clips: things that move, come late, vanish and come back, with phrases and exact masks in every frame.

A clip is a function of (split, seed, index) and nothing else. Frames are drawn when they are asked for, so a clip of
thousands of frames takes no more memory than its masks.

Splits:
    clip_train    colour-shape pairs that are not held out (`scenes.SEEN_PAIRS`)
    clip_seen     the same kinds of clips, for measuring
    clip_unseen   pairs that training never shows; phrases that name such a pair are tagged `unseen pair`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8

from deixis.data.scenes.images import SEEN_PAIRS, UNSEEN_PAIRS
from deixis.data.scenes.motion import WAYS, Kind, Moving, clip_phrases
from deixis.data.scenes.refer_scenes import few_kinds
from deixis.data.scenes.shapes import COLOURS_RGB, Window, background, coverage, outline_of, paint
from deixis.errors import DataError
from deixis.geometry.rle import bitmap_rle
from deixis.video_records import Clip, ClipExpression, Masklet

CLIP_SPLITS = ("clip_train", "clip_seen", "clip_unseen")
CLIP_SIZE_HW = (128, 128)
CLIP_FRAMES = 24
MAX_CLIP_PHRASES = 8
_MAX_GROUPS = 3
_TWINS = 0.5  # share of clips in which two things look alike and move differently
_MEETING = 0.25  # share of frames at most in which two things may lie on one spot
_TRIES = 40


@dataclass(frozen=True)
class DrawnFrames:
    """The frames of a generated clip, drawn one by one."""

    movings: tuple[Moving, ...]
    backdrop: UInt8[np.ndarray, "h w 3"]
    surfaces: tuple[Float[np.ndarray, "_ _ 3"], ...]
    count: int
    noise_seed: int

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.backdrop.shape[0], self.backdrop.shape[1]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> UInt8[np.ndarray, "h w 3"]:
        if not 0 <= index < self.count:
            raise IndexError(f"frame {index} of {self.count}")
        pixels = self.backdrop.astype(np.float32)
        for moving, surface in zip(self.movings, self.surfaces, strict=True):
            placed = self._placed(moving, index)
            if placed is None:
                continue
            window, alpha = placed
            x, y = moving.at(self._share(index))
            middle = surface.shape[0] // 2
            top, left = middle - (int(np.floor(y)) - window.top), middle - (int(np.floor(x)) - window.left)
            texture = surface[top : top + window.size_hw[0], left : left + window.size_hw[1]]
            pixels[window.slices] += alpha[..., None] * (texture - pixels[window.slices])
        noise = np.random.default_rng([self.noise_seed, index]).normal(0, 2, pixels.shape)
        return np.asarray(np.clip(pixels + noise, 0, 255), np.uint8)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return self.read(range(self.count))

    def read(self, indices: Iterable[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Some frames, in the order given."""
        return (self[index] for index in indices)

    def masks(self, index: int) -> list[Bool[np.ndarray, "h w"]]:
        """What is to be seen of each thing in a frame."""
        found: list[np.ndarray] = []
        for moving in self.movings:
            mask = np.zeros(self.size_hw, bool)
            placed = self._placed(moving, index)
            if placed is not None:
                window, alpha = placed
                mask[window.slices] = alpha >= 0.5
            found = [earlier & ~mask for earlier in found] + [mask]
        return found

    def _placed(self, moving: Moving, index: int) -> tuple[Window, Float[np.ndarray, "h w"]] | None:
        """Where a thing is drawn and how it covers each pixel there; None where it is outside the picture."""
        centre = moving.at(self._share(index))
        window = Window.around(centre, moving.thing.radius_px, self.size_hw)
        if min(window.size_hw) < 1:
            return None
        thing = moving.thing
        return window, coverage(outline_of(thing.shape), centre, thing.radius_px, thing.turn_deg, window)

    def _share(self, index: int) -> float:
        return index / max(self.count - 1, 1)


@dataclass(frozen=True)
class ClipScenes:
    """Clips by position."""

    split: str
    count: int
    seed: int
    frames: int = CLIP_FRAMES
    size_hw: tuple[int, int] = CLIP_SIZE_HW

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"scenes:split={self.split},count={self.count},seed={self.seed}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Clip:
        if not 0 <= index < self.count:
            raise IndexError(f"clip {index} of {self.count}")
        rng = np.random.default_rng([self.seed, 200 + CLIP_SPLITS.index(self.split), index])
        pairs = (*UNSEEN_PAIRS, *SEEN_PAIRS) if self.split == "clip_unseen" else SEEN_PAIRS
        movings = _composed(pairs, self.size_hw, rng)
        surfaces = tuple(_surface(moving, rng) for moving in movings)
        frames = DrawnFrames(
            tuple(movings), background(self.size_hw, rng), surfaces, self.frames, int(rng.integers(2**31))
        )
        seen = [frames.masks(number) for number in range(self.frames)]
        masklets = [Masklet(tuple(_rle(masks[i]) for masks in seen), i) for i in range(len(movings))]
        phrases = clip_phrases(movings, rng, pairs)
        chosen = sorted(rng.permutation(len(phrases))[:MAX_CLIP_PHRASES].tolist())
        expressions = []
        for position in chosen:
            phrase = phrases[position]
            unseen = any(pair in UNSEEN_PAIRS for pair in phrase.pairs)
            tags = (*phrase.tags, "unseen pair") if unseen else phrase.tags
            expressions.append(ClipExpression(phrase.texts, phrase.things, tags, position))
        source = f"{self.name}: clip {index}"
        return Clip(frames, tuple(range(self.frames)), tuple(masklets), tuple(expressions), str(index), source)


def clip_scenes(split: str, count: int, seed: int, frames: int = CLIP_FRAMES) -> ClipScenes:
    """A data set of generated clips.

    Raises:
        DataError: a split that does not exist, no clips, or fewer than 2 frames.
    """
    if split not in CLIP_SPLITS:
        raise DataError(f"generated clips have no split {split!r}; choose one of {', '.join(CLIP_SPLITS)}")
    if count < 1 or frames < 2:
        raise DataError(f"scenes: count must be at least 1 and frames at least 2, got {count} and {frames}")
    return ClipScenes(split, count, seed, frames)


def _composed(pairs: Sequence[Kind], size_hw: tuple[int, int], rng: np.random.Generator) -> list[Moving]:
    """Two or three things (four with what one of them passes behind) and their ways, which seldom cross."""
    kinds = few_kinds(tuple(pairs), rng)
    movings: list[Moving] = []
    wanted = int(rng.integers(2, _MAX_GROUPS + 1))
    groups = 0
    for _ in range(_TRIES):
        if groups == wanted:
            break
        kind = kinds[int(rng.integers(len(kinds)))]
        if movings and rng.random() < _TWINS:
            first = movings[0].thing
            kind = (first.colour, first.shape)
        way = list(WAYS)[int(rng.integers(len(WAYS)))]
        group = WAYS[way](kind, size_hw, rng)
        if len(group) > 1:  # what is passed behind gets a kind that the split may show
            group[1] = _recoloured(group[1], kinds, pairs, rng)
        if not any(_meet(new, old) for new in group for old in movings):
            movings += group
            groups += 1
    return movings


def _recoloured(moving: Moving, kinds: Sequence[Kind], pairs: Sequence[Kind], rng: np.random.Generator) -> Moving:
    """The same shape in a colour of the clip, if it may have one, else in any that is allowed."""
    shape = moving.thing.shape
    colours = [colour for colour, other in pairs if other == shape]
    usual = [colour for colour in colours if colour in {colour for colour, _ in kinds}]
    chosen = usual or colours
    return replace(moving, thing=replace(moving.thing, colour=chosen[int(rng.integers(len(chosen)))]))


def _meet(first: Moving, second: Moving) -> bool:
    """Whether two things lie on one spot for too long."""
    shares = np.linspace(0, 1, 25)  # times at which the two are compared
    apart = [np.hypot(*np.subtract(first.at(share), second.at(share))) for share in shares]
    near = np.array(apart) < 0.9 * (first.thing.radius_px + second.thing.radius_px)
    return bool(near.mean() > _MEETING)


def _surface(moving: Moving, rng: np.random.Generator) -> Float[np.ndarray, "side side 3"]:
    """A thing's texture, large enough for every window around it; it moves with the thing."""
    thing = moving.thing
    side = 2 * int(1.3 * thing.radius_px + 6) + 1
    colour = np.clip(np.array(COLOURS_RGB[thing.colour]) * rng.uniform(0.88, 1.06) + rng.normal(0, 6, 3), 0, 255)
    return paint(thing.texture, colour, (side, side), max(4.0, thing.radius_px * rng.uniform(0.35, 0.55)), rng)


def _rle(mask: Bool[np.ndarray, "h w"]) -> dict[str, object] | None:
    return bitmap_rle(mask) if mask.any() else None
