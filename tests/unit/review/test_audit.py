"""An audit: precision of a sample with its interval, bands of score, against the formula and against simulation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_reviews import small_review

from deixis.errors import DataError
from deixis.options.review.audit import ReviewAuditOptions
from deixis.recipes.review.audit import audit_review
from deixis.review import actions
from deixis.review.audit import Judged, bands_of, draw_sample, judged_sample, precision_of


def judged(right: int, wrong: int, score: float | None = None) -> list[Judged]:
    return [Judged("cat", score, True)] * right + [Judged("cat", score, False)] * wrong


@pytest.mark.parametrize(("right", "wrong"), [(0, 1), (1, 0), (0, 40), (40, 0), (9, 1), (150, 50)])
def test_the_interval_is_wilsons(right: int, wrong: int) -> None:
    n, p, z = right + wrong, right / (right + wrong), 1.959963984540054
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = precision_of(judged(right, wrong))
    assert found.low == pytest.approx(max(middle - half, 0), abs=1e-12)
    assert found.high == pytest.approx(min(middle + half, 1), abs=1e-12)


def test_nothing_judged_is_nothing_known() -> None:
    found = precision_of([])
    assert (found.low, found.high, math.isnan(found.value)) == (0, 1, True)
    bands = bands_of([], 0.9, 0.1)
    assert (math.isnan(bands.accept), bands.reject) == (True, 0)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(60, 0.9, 400)
    held = [precision_of(judged(int(one), 60 - int(one))) for one in right]
    share = np.mean([one.low <= 0.9 <= one.high for one in held])
    assert 0.92 <= share <= 0.98


def test_bands_follow_from_what_is_right_at_which_score() -> None:
    rows = judged(100, 0, 0.9) + judged(20, 20, 0.5) + judged(0, 60, 0.1)
    bands = bands_of(rows, wanted=0.95, tolerated=0.1)
    assert (bands.accept, bands.reject) == (0.9, 0.5)
    assert bands_of(rows + judged(50, 0), 0.95, 0.1) == bands, "labels without a score say nothing about scores"
    assert math.isnan(bands_of(judged(3, 0, 0.9), 0.95, 0.1).accept), "three are too few to be sure"


def test_a_sample_is_random_and_what_people_correct_was_wrong(tmp_path: Path, capsys: Any) -> None:
    file = str(tmp_path / "review.db")
    with small_review(tmp_path) as store:
        actions.add_object(store, 1, "cat", annotator="ann", box=[0, 0, 9, 9])
        assert draw_sample(store, 3, seed=1) == 3
        first = [row["id"] for row in store.rows("SELECT id FROM objects WHERE sampled > 0 ORDER BY sampled")]
        assert draw_sample(store, 99, seed=2) == 5, "all but what a person drew"
        second = [row["id"] for row in store.rows("SELECT id FROM objects WHERE sampled > 0 ORDER BY sampled")]
        assert first != second[:3]
        assert sorted(second) == [1, 2, 3, 4, 5]
        assert judged_sample(store) == ([], 5)
    with pytest.raises(DataError, match="no object of a sample is judged"):
        audit_review(ReviewAuditOptions(db=file))
    with small_review(tmp_path / "b") as other:
        draw_sample(other, 5)
        for kind, number in (("accept", 1), ("rename", 2), ("reject", 4), ("move", 5)):
            more = {"label": "größe", "box": [1, 1, 9, 9]}
            actions.act_on_object(other, kind, number, version=1, annotator="ann", **more)  # type: ignore[arg-type]
    out = tmp_path / "audit.json"
    figures = audit_review(ReviewAuditOptions(db=str(tmp_path / "b" / "review.db"), output=out))
    assert (figures["all classes"]["right"], figures["all classes"]["judged"]) == (1, 4)
    assert (figures["cat"]["right"], figures["cat"]["judged"]) == (1, 3)
    assert figures["<b>dog</b>"]["judged"] == 1, "what it claimed to be"
    assert "still open" in capsys.readouterr().out
    assert '"accept_from": null' in out.read_text()
