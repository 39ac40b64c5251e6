"""Phrases for the things of a generated scene: each means exactly the things it lists.

Kinds of phrases, which are also their tags: `attribute` (colour, shape, texture), `several`, `size`, `place`,
`relation`, `absent`; and `description`, all that can be said of one thing by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deixis.data.scenes.images import Thing, scene_words
from deixis.data.scenes.shapes import KNOWN_SHAPES, NEW_SHAPES

CLEARLY_LARGER = 1.3  # ratio of radii from which "largest" and "smallest" are beyond doubt
SMALL_PX, LARGE_PX = 16.0, 20.0  # radii up to which a thing is small, and from which it is large
CLEARLY_APART_PX = 14.0  # distance along an axis from which "left of" and the like are beyond doubt
PLURALS = {"cross": "crosses", "fish": "fish"}
_NEAREST_RATIO = 1.4  # how much farther the next candidate must be for "nearest" to be beyond doubt


@dataclass(frozen=True)
class Phrase:
    """Sentences that mean the same things.

    Attributes:
        texts: the sentences.
        things: positions of the things meant; none where nothing of the kind is there.
        pairs: the (colour, shape) pairs that the sentences name.
    """

    texts: tuple[str, ...]
    things: tuple[int, ...]
    tags: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Words:
    """A noun phrase without article, and what it fits."""

    text: str
    plural: str
    fits: Callable[[Thing], bool]
    pair: tuple[tuple[str, str], ...] = ()


def plural(shape: str) -> str:
    """The plural of a shape's name.

    >>> plural("star"), plural("cross"), plural("bow tie")
    ('stars', 'crosses', 'bow ties')
    """
    return PLURALS.get(shape, shape + "s")


def words_of(thing: Thing) -> list[Words]:
    """Noun phrases that fit a thing: by colour and shape, shape, colour, texture and shape."""
    colour, shape, texture = thing.colour, thing.shape, thing.texture
    found = [
        Words(
            f"{colour} {shape}",
            f"{colour} {plural(shape)}",
            lambda other: (other.colour, other.shape) == (colour, shape),
            ((colour, shape),),
        ),
        Words(shape, plural(shape), lambda other: other.shape == shape),
        Words(f"{colour} thing", f"{colour} things", lambda other: other.colour == colour),
    ]
    if texture != "plain":
        found.append(
            Words(
                f"{texture} {shape}",
                f"{texture} {plural(shape)}",
                lambda other: (other.texture, other.shape) == (texture, shape),
            )
        )
    return found


def nouns_of(things: Sequence[Thing]) -> list[Words]:
    """What can be said of the things of a scene, each once, in order."""
    nouns: dict[str, Words] = {}
    for thing in things:
        for words in words_of(thing):
            nouns.setdefault(words.text, words)
    return list(nouns.values())


def phrases_for(things: Sequence[Thing], rng: np.random.Generator, pairs: Sequence[tuple[str, str]]) -> list[Phrase]:
    """Phrases for a scene, no two of them with the same words.

    Args:
        pairs: the (colour, shape) pairs that phrases about absent things may name.
    """
    nouns = nouns_of(things)
    found: list[Phrase] = []
    for words in nouns:
        meant = tuple(i for i, thing in enumerate(things) if words.fits(thing))
        found.append(attribute_phrase(words, meant))
        if len(meant) > 1:
            found += _by_size(words, meant, things) + _by_place(words, meant, things)
            found += _by_relation(words, meant, things, nouns)
    return found + absent_phrases(things, rng, pairs)


def descriptions_of(things: Sequence[Thing]) -> list[Phrase]:
    """`the small red striped circle`: for each thing its size, colour, texture and shape, where it alone fits them.

    A size is named where it is beyond doubt, a texture where there is one.
    """
    found = []
    for position, thing in enumerate(things):
        size, texture = size_of(thing), "" if thing.texture == "plain" else thing.texture
        fitting = [
            other
            for other in things
            if (other.colour, other.shape) == (thing.colour, thing.shape)
            and (not size or size_of(other) in (size, ""))
            and (not texture or other.texture == texture)
        ]
        if len(fitting) == 1:
            text = " ".join(word for word in ("the", size, thing.colour, texture, thing.shape) if word)
            found.append(Phrase((text,), (position,), ("description",), ((thing.colour, thing.shape),)))
    return found


def size_of(thing: Thing) -> str:
    """`small`, `large`, or nothing where it is neither beyond doubt."""
    return "small" if thing.radius_px <= SMALL_PX else "large" if thing.radius_px >= LARGE_PX else ""


def attribute_phrase(words: Words, meant: tuple[int, ...]) -> Phrase:
    """A noun by itself, which means all things that it fits."""
    if len(meant) == 1:
        return Phrase((f"the {words.text}", words.text), meant, ("attribute",), words.pair)
    return Phrase((f"all {words.plural}", f"the {words.plural}"), meant, ("several",), words.pair)


def _by_size(words: Words, meant: tuple[int, ...], things: Sequence[Thing]) -> list[Phrase]:
    ordered = sorted(meant, key=lambda i: things[i].radius_px)
    found = []
    if things[ordered[-1]].radius_px > CLEARLY_LARGER * things[ordered[-2]].radius_px:
        texts = (f"the largest {words.text}", f"the biggest {words.text}")
        found.append(Phrase(texts, (ordered[-1],), ("size",), words.pair))
    if things[ordered[1]].radius_px > CLEARLY_LARGER * things[ordered[0]].radius_px:
        found.append(Phrase((f"the smallest {words.text}",), (ordered[0],), ("size",), words.pair))
    return found


def _by_place(words: Words, meant: tuple[int, ...], things: Sequence[Thing]) -> list[Phrase]:
    found = []
    for axis, (first, last) in enumerate((("leftmost", "rightmost"), ("topmost", "bottommost"))):
        ordered = sorted(meant, key=lambda i: things[i].centre_xy_px[axis])
        places = [things[i].centre_xy_px[axis] for i in ordered]
        ends = ((first, ordered[0], places[1] - places[0]), (last, ordered[-1], places[-1] - places[-2]))
        for word, thing, gap in ends:
            if gap > CLEARLY_APART_PX:
                found.append(Phrase((f"the {word} {words.text}",), (thing,), ("place",), words.pair))
    return found


def _by_relation(words: Words, meant: tuple[int, ...], things: Sequence[Thing], nouns: Sequence[Words]) -> list[Phrase]:
    """`the star left of the red circle`: one of several, told by a thing that is itself named beyond doubt."""
    found = []
    for anchor in nouns:
        fitting = [i for i, thing in enumerate(things) if anchor.fits(thing)]
        if len(fitting) != 1 or fitting[0] in meant or " thing" in anchor.text:
            continue
        for relation, chosen in _related(meant, fitting[0], things):
            text = f"the {words.text} {relation} the {anchor.text}"
            found.append(Phrase((text,), (chosen,), ("relation",), words.pair + anchor.pair))
    return found


def _related(meant: tuple[int, ...], anchor: int, things: Sequence[Thing]) -> list[tuple[str, int]]:
    """Relations to a thing that hold for exactly one of the things meant, and clearly not for the others."""
    offsets = np.array([np.subtract(things[i].centre_xy_px, things[anchor].centre_xy_px) for i in meant])
    found = []
    for relation, along in (
        ("left of", -offsets[:, 0]),
        ("right of", offsets[:, 0]),
        ("above", -offsets[:, 1]),
        ("below", offsets[:, 1]),
    ):
        # one clearly on this side, all others on the other
        if (along > CLEARLY_APART_PX).sum() == 1 and (along < 0).sum() == len(meant) - 1:
            found.append((relation, meant[int(along.argmax())]))
    distances = np.hypot(*offsets.T)
    order = distances.argsort()
    if distances[order[1]] > _NEAREST_RATIO * distances[order[0]]:
        found.append(("nearest to", meant[int(order[0])]))
    return found


def absent_phrases(things: Sequence[Thing], rng: np.random.Generator, pairs: Sequence[tuple[str, str]]) -> list[Phrase]:
    """Two names of what the scene does not show: a colour and shape, a shape, or a colour.

    Each form also names things that are there, so that the form alone gives nothing away. Most pairs are near misses,
    which share a colour or a shape with the scene.
    """
    shown = {(thing.colour, thing.shape) for thing in things}
    colours, shapes = {colour for colour, _ in shown}, {shape for _, shape in shown}
    missing = [pair for pair in pairs if pair not in shown]
    near = [pair for pair in missing if pair[0] in colours or pair[1] in shapes]
    by_form = (
        [(f"{colour} {shape}", ((colour, shape),)) for colour, shape in (near if rng.random() < 0.7 else missing)],
        [(shape, ()) for shape in sorted({shape for _, shape in pairs} - shapes)],
        [(f"{colour} thing", ()) for colour in sorted({colour for colour, _ in pairs} - colours)],
    )
    found = []
    for form in rng.permutation(3)[:2].tolist():
        if names := by_form[form]:
            name, named = names[int(rng.integers(len(names)))]
            found.append(Phrase((f"the {name}", name), (), ("absent",), named))
    return found


def phrase_words() -> tuple[str, ...]:
    """Every word of the phrases: for tokenizers made from words.

    The names of the demonstration's shapes are among them: their rows stay untrained until a run brings them.
    """
    names = [word for shape in NEW_SHAPES for word in (*shape.split(), *plural(shape).split())]
    return (*scene_words(), *PHRASE_WORDS, *(plural(shape) for shape in KNOWN_SHAPES), *names)


PHRASE_WORDS = (
    *("the", "all", "thing", "things", "small", "large", "largest", "biggest", "smallest"),
    *("leftmost", "rightmost", "topmost", "bottommost"),
    *("left", "right", "of", "above", "below", "nearest", "to"),
)
