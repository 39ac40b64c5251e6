"""Phrases for the things of a generated clip: each means exactly the things it lists, through the whole clip.

Besides the kinds that single pictures have (`attribute`, `several`, `absent`): `motion` (`the star that moves left`),
`presence` (`the star that comes in`), `relation` (`the star that goes behind the red circle`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deixis.data.scenes.motion import DIRECTIONS, Moving
from deixis.data.scenes.phrases import Phrase, Words, absent_phrases, attribute_phrase, nouns_of, words_of


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
