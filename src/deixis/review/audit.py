"""How good labels or predictions are, from a random sample that people judged.

An object is right where it was accepted as it was. Precision of a class is the share of right ones among those judged,
with Wilson's interval (Wilson 1927, JASA 22), which holds for few objects and near 0 and 1 too. Bands of score for
accept, review and reject follow from it: from a score on, where the lower end of the interval reaches the wanted
precision, objects may be accepted unseen; up to a score, where the upper end is below the tolerated one, rejected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from deixis.data.formats.review.read import kind_of_change
from deixis.errors import DataError
from deixis.review.store import Store

LEVEL = 0.95
"""Confidence of the intervals."""


@dataclass(frozen=True)
class Judged:
    """One judged object of the sample."""

    label: str
    score: float | None
    right: bool


@dataclass(frozen=True)
class Precision:
    """How many of a class's judged objects are right.

    Attributes:
        low, high: Wilson's interval at 95 %.
    """

    right: int
    judged: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share that is right; NaN where nothing was judged."""
        return self.right / self.judged if self.judged else math.nan


@dataclass(frozen=True)
class Bands:
    """Scores of a class: accepted unseen from `accept` on, rejected unseen below `reject`; reviewed between them.

    Attributes:
        accept: NaN where no score is high enough.
        reject: 0 where nothing may be rejected.
    """

    accept: float
    reject: float


def draw_sample(store: Store, count: int, seed: int = 0) -> int:
    """Mark objects at random for an audit, in random order, instead of those of an earlier one; how many there are.

    Objects that people drew are left out: they are nobody's claim but theirs.

    Raises:
        DataError: the review has no object.
    """
    rows = store.rows("SELECT id FROM objects WHERE origin != 'drawn' AND status != 'deleted' ORDER BY id")
    if not rows:
        raise DataError(f"{store.file}: has no object to draw; make the review with labels or with --model")
    ids = [row["id"] for row in rows]
    chosen = np.random.default_rng(seed).permutation(ids)[:count].tolist()
    with store.changing():
        store.write("UPDATE objects SET sampled = 0 WHERE sampled > 0")
        for place, number in enumerate(chosen, start=1):
            store.write("UPDATE objects SET sampled = ? WHERE id = ?", (place, number))
    return len(chosen)


def judged_sample(store: Store) -> tuple[list[Judged], int]:
    """The objects of the sample that were judged, by what they claimed to be, and how many are still open."""
    rows = store.rows("SELECT * FROM objects WHERE sampled > 0 ORDER BY sampled")
    judged = [row for row in rows if row["status"] != "open"]
    found = [Judged(first_label(row["first"]), row["score"], kind_of_change(row) == "accepted") for row in judged]
    return found, len(rows) - len(judged)


def first_label(first: str) -> str:
    """The class that an object had before anybody judged it."""
    return str(json.loads(first)["label"])


def precision_of(judged: Sequence[Judged]) -> Precision:
    """Precision of some judged objects.

    >>> found = precision_of([Judged("cat", None, True)] * 9 + [Judged("cat", None, False)])
    >>> found.right, found.judged, round(found.low, 3), round(found.high, 3)
    (9, 10, 0.596, 0.982)
    """
    right, total = sum(one.right for one in judged), len(judged)
    if not total:
        return Precision(0, 0, 0.0, 1.0)
    interval = binomtest(right, total).proportion_ci(LEVEL, method="wilson")
    return Precision(right, total, float(interval.low), float(interval.high))


def bands_of(judged: Sequence[Judged], wanted: float, tolerated: float) -> Bands:
    """Bands of score of some judged objects, those without a score left out.

    Args:
        wanted: lowest precision of what is accepted unseen.
        tolerated: highest precision of what is rejected unseen.
    """
    scored = sorted((one for one in judged if one.score is not None), key=lambda one: -(one.score or 0.0))
    scores = sorted({one.score for one in scored if one.score is not None})
    accept, reject = math.nan, 0.0
    for score in scores:  # the lowest from which on enough are right
        if precision_of([one for one in scored if (one.score or 0.0) >= score]).low >= wanted:
            accept = score
            break
    for score in reversed(scores):  # the highest below which hardly any is right
        below = [one for one in scored if (one.score or 0.0) < score]
        if below and (math.isnan(accept) or score <= accept) and precision_of(below).high <= tolerated:
            reject = score
            break
    return Bands(accept, reject)
