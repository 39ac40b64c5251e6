"""How the things of generated clips move: paths through the picture, out of it, and behind one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deixis.data.scenes.images import SMALLEST_RADIUS_PX, Thing
from deixis.data.scenes.phrases import Phrase, Words, absent_phrases, attribute_phrase, nouns_of, words_of
from deixis.data.scenes.shapes import DEFAULT_TURN_LIMIT_DEG, TEXTURES, TURN_LIMIT_DEG

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
COVERING_SHAPES = ("circle", "square", "diamond")
"""Without holes and wide enough for a smaller thing to go behind."""
_LARGEST_SHARE = 0.17  # radius of a moving thing, of the picture's shorter side
_OUTSIDE = 1.35  # in radii: how far from the edge a centre must be for nothing to be seen
_MIN_WAY = 0.35  # of the picture's side: a motion that is beyond doubt
_PLAIN_SHARE = 0.65

Kind = tuple[str, str]  # (colour, shape)
Stop = tuple[float, float, float]  # (share of the clip's time, x, y in pixels)


@dataclass(frozen=True)
class Moving:
    """A thing and its way through a clip.

    Attributes:
        stops: it goes straight and evenly from each to the next.
        motion: one of `DIRECTIONS`, `still`, or nothing where it goes to and fro.
        presence: `comes in`, `goes away`, `comes back`, or nothing where it stays in the picture.
        behind: how many places later in the order of drawing the thing stands that it passes behind; 0 for none.
    """

    thing: Thing
    stops: tuple[Stop, ...]
    motion: str
    presence: str = ""
    behind: int = 0

    def at(self, share: float) -> tuple[float, float]:
        """Its centre (x, y) in pixels at a share of the clip's time, in [0, 1]."""
        times, xs, ys = zip(*self.stops, strict=True)
        return float(np.interp(share, times, xs)), float(np.interp(share, times, ys))


def stays(kind: Kind, size_hw: tuple[int, int], rng: np.random.Generator) -> list[Moving]:
    """A thing that does not move."""
    thing = thing_of(kind, size_hw, rng)
    return [Moving(thing, ((0.0, *_inside(thing, size_hw, rng)),), "still")]


def drifts(kind: Kind, size_hw: tuple[int, int], rng: np.random.Generator) -> list[Moving]:
    """A thing that moves straight and stays in the picture."""
    thing = thing_of(kind, size_hw, rng)
    motion, axis, sign = _direction(rng)
    start, end = list(_inside(thing, size_hw, rng)), list(_inside(thing, size_hw, rng))
    side, margin = size_hw[1 - axis], 1.1 * thing.radius_px  # axis 0 is x, whose side is the width, size_hw[1]
    way = rng.uniform(_MIN_WAY * side, side - 2 * margin)
    low = rng.uniform(margin, side - margin - way)
    start[axis], end[axis] = (low, low + way) if sign > 0 else (low + way, low)
    end[1 - axis] = start[1 - axis]
    return [Moving(thing, ((0.0, start[0], start[1]), (1.0, end[0], end[1])), motion)]


def comes_in(kind: Kind, size_hw: tuple[int, int], rng: np.random.Generator) -> list[Moving]:
    """A thing that is outside for a while and then moves into the picture."""
    thing, motion, outside, inside = _across_the_edge(kind, size_hw, rng)
    late = rng.uniform(0.15, 0.4)
    return [Moving(thing, ((0.0, *outside), (late, *outside), (1.0, *inside)), motion, "comes in")]


def goes_away(kind: Kind, size_hw: tuple[int, int], rng: np.random.Generator) -> list[Moving]:
    """A thing that leaves the picture and stays away."""
    thing, back, outside, inside = _across_the_edge(kind, size_hw, rng)
    opposite = dict(zip(DIRECTIONS, ("right", "left", "down", "up"), strict=True))
    gone = rng.uniform(0.6, 0.85)
    return [Moving(thing, ((0.0, *inside), (gone, *outside), (1.0, *outside)), opposite[back], "goes away")]


def comes_back(kind: Kind, size_hw: tuple[int, int], rng: np.random.Generator) -> list[Moving]:
    """A thing that leaves the picture and returns."""
    thing, _, outside, inside = _across_the_edge(kind, size_hw, rng)
    gone, again = rng.uniform(0.25, 0.4), rng.uniform(0.55, 0.7)
    return [Moving(thing, ((0.0, *inside), (gone, *outside), (again, *outside), (1.0, *inside)), "", "comes back")]


def passes_behind(kind: Kind, size_hw: tuple[int, int], rng: np.random.Generator) -> list[Moving]:
    """A small thing that passes behind a large one that stays: to be seen, hidden, to be seen again."""
    height, width = size_hw
    motion, axis, sign = _direction(rng)
    small = replace(thing_of(kind, size_hw, rng), radius_px=rng.uniform(0.9, 1.1) * SMALLEST_RADIUS_PX, texture="plain")
    shape = COVERING_SHAPES[int(rng.integers(len(COVERING_SHAPES)))]
    wide = 1.5 if shape == "diamond" else 1.0  # its outline is narrower than it is high
    large = replace(thing_of((kind[0], shape), size_hw, rng), radius_px=wide * 0.23 * min(size_hw), turn_deg=0.0)
    centre = (width / 2 + rng.uniform(-6, 6), height / 2 + rng.uniform(-6, 6))
    start, end = list(centre), list(centre)
    first, last = 1.1 * small.radius_px, size_hw[1 - axis] - 1.1 * small.radius_px
    start[axis], end[axis] = (first, last) if sign > 0 else (last, first)
    hidden = Moving(small, ((0.0, start[0], start[1]), (1.0, end[0], end[1])), motion, behind=1)
    return [hidden, Moving(large, ((0.0, *centre),), "still")]


WAYS: dict[str, Callable[[Kind, tuple[int, int], np.random.Generator], list[Moving]]] = {
    "stays": stays,
    "drifts": drifts,
    "comes in": comes_in,
    "goes away": goes_away,
    "comes back": comes_back,
    "passes behind": passes_behind,
}


def thing_of(kind: Kind, size_hw: tuple[int, int], rng: np.random.Generator) -> Thing:
    """A thing of a kind, of random size and texture, placed nowhere yet."""
    largest = _LARGEST_SHARE * min(size_hw)
    limit = TURN_LIMIT_DEG.get(kind[1], DEFAULT_TURN_LIMIT_DEG)
    radius = SMALLEST_RADIUS_PX * (largest / SMALLEST_RADIUS_PX) ** rng.random()
    textured = rng.random() >= _PLAIN_SHARE
    return Thing(
        shape=kind[1],
        colour=kind[0],
        texture=str(rng.choice(TEXTURES[1:])) if textured else "plain",
        centre_xy_px=(0.0, 0.0),
        radius_px=max(radius, 14.0) if textured else radius,
        turn_deg=rng.uniform(-limit, limit),
    )


def _direction(rng: np.random.Generator) -> tuple[str, int, int]:
    """(word, axis, sign) of a random direction; axis 0 is x."""
    word = list(DIRECTIONS)[int(rng.integers(len(DIRECTIONS)))]
    axis = 0 if DIRECTIONS[word][0] else 1
    return word, axis, DIRECTIONS[word][axis]


def _inside(thing: Thing, size_hw: tuple[int, int], rng: np.random.Generator) -> tuple[float, float]:
    margin = 1.1 * thing.radius_px
    return rng.uniform(margin, size_hw[1] - margin), rng.uniform(margin, size_hw[0] - margin)


def _across_the_edge(
    kind: Kind, size_hw: tuple[int, int], rng: np.random.Generator
) -> tuple[Thing, str, tuple[float, float], tuple[float, float]]:
    """A thing, the direction from a place just outside the picture to one well inside, and both places."""
    thing = thing_of(kind, size_hw, rng)
    motion, axis, sign = _direction(rng)
    inside = list(_inside(thing, size_hw, rng))
    side, margin = size_hw[1 - axis], 1.1 * thing.radius_px
    depth = rng.uniform(_MIN_WAY * side, side - margin)
    inside[axis] = depth if sign > 0 else side - depth
    outside = list(inside)
    outside[axis] = -_OUTSIDE * thing.radius_px - 1 if sign > 0 else side + _OUTSIDE * thing.radius_px + 1
    return thing, motion, (outside[0], outside[1]), (inside[0], inside[1])


def clip_phrases(movings: Sequence[Moving], rng: np.random.Generator, pairs: Sequence[tuple[str, str]]) -> list[Phrase]:
    """Phrases for a clip, no two of them with the same words.

    Args:
        pairs: the (colour, shape) pairs that phrases about absent things may name.
    """
    things = [moving.thing for moving in movings]
    found: list[Phrase] = []
    for words in nouns_of(things):
        meant = tuple(i for i, thing in enumerate(things) if words.fits(thing))
        found.append(attribute_phrase(words, meant))
        found += _by_motion(words, meant, movings) + _by_presence(words, meant, movings)
        found += _by_relation(words, meant, movings)
    return found + absent_phrases(things, rng, pairs)


def _by_motion(words: Words, meant: tuple[int, ...], movings: Sequence[Moving]) -> list[Phrase]:
    """What moves one way, or does not move; only where exactly one thing of the kind does.

    What goes to and fro moves both ways, so nothing of its kind is told by a direction.
    """
    found = []
    if any(not movings[i].motion for i in meant):
        return []
    for motion in (*DIRECTIONS, "still"):
        one = tuple(i for i in meant if movings[i].motion == motion)
        if len(one) == 1:
            verb = "stays still" if motion == "still" else f"moves {motion}"
            found.append(Phrase((f"the {words.text} that {verb}",), one, ("motion",), words.pair))
    return found


def _by_presence(words: Words, meant: tuple[int, ...], movings: Sequence[Moving]) -> list[Phrase]:
    found = []
    for presence in ("comes in", "goes away", "comes back"):
        one = tuple(i for i in meant if movings[i].presence == presence)
        if len(one) == 1:
            found.append(Phrase((f"the {words.text} that {presence}",), one, ("presence",), words.pair))
    return found


def _by_relation(words: Words, meant: tuple[int, ...], movings: Sequence[Moving]) -> list[Phrase]:
    """The one thing of a kind that passes behind another, which is itself named beyond doubt."""
    passing = [i for i in meant if movings[i].behind]
    if len(passing) != 1:
        return []
    anchor = movings[passing[0] + movings[passing[0]].behind].thing
    noun = words_of(anchor)[0]
    if sum(noun.fits(moving.thing) for moving in movings) != 1 or words.fits(anchor):
        return []
    text = f"the {words.text} that goes behind the {noun.text}"
    return [Phrase((text,), (passing[0],), ("relation",), words.pair + noun.pair)]
