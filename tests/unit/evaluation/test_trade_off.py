"""The knee between what was gained and what was forgotten."""

from __future__ import annotations

import pytest

from deixis.evaluation.trade_off import TradeOff, knee


def test_balance_is_high_only_where_both_are() -> None:
    assert TradeOff(1, 0.0, 0.0).balance == 0
    assert TradeOff(1, 0.9, 0.0).balance == 0
    assert TradeOff(1, 0.5, 0.5).balance == pytest.approx(0.5)
    assert TradeOff(1, 0.8, 0.2).balance == pytest.approx(0.32)  # not their mean, 0.5


@pytest.mark.parametrize(
    ("points", "weight"),
    [
        ([(0, 0.1, 0.8), (0.5, 0.6, 0.7), (1, 0.65, 0.4)], 0.5),
        ([(0, 0.1, 0.8), (0.5, 0.4, 0.8), (1, 0.65, 0.8)], 1),  # nothing forgotten
        ([(0, 0.5, 0.8), (0.5, 0.4, 0.5), (1, 0.3, 0.2)], 0),  # nothing gained
        ([(0, 0.0, 0.0), (0.5, 0.0, 0.0), (1, 0.0, 0.0)], 1),  # nothing to tell them by
        ([(1, 0.6, 0.6), (0, 0.6, 0.6)], 1),  # whatever the order
    ],
)
def test_knee(points: list[tuple[float, float, float]], weight: float) -> None:
    assert knee([TradeOff(*point) for point in points]).weight == weight
