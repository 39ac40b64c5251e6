"""Repeat-factor sampling: rare classes are shown more often, every image at least once, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from deixis.data.sets.mixing import Balance, repeat_factors

SHOWN = [*([{"car"}] * 90), *([{"car", "tram"}] * 9), {"ferry"}, set()]


def test_the_factors_are_those_of_lvis():
    factors = repeat_factors(SHOWN, 0.25)
    of_tram, of_ferry = np.sqrt(0.25 / (9 / 101)), np.sqrt(0.25 / (1 / 101))
    np.testing.assert_allclose(factors, [*([1.0] * 90), *([of_tram] * 9), of_ferry, 1.0])
    assert (repeat_factors(SHOWN, 0.001) == 1).all(), "no class is that rare"


@pytest.mark.parametrize("share", [0.001, 0.1, 0.25, 1.0])
def test_an_epoch_rounds_the_factors_up_or_down(share):
    factors = repeat_factors(SHOWN, share)
    balance = Balance.of(factors, seed=3)
    counts = np.array([np.bincount(balance.rows(epoch), minlength=len(SHOWN)) for epoch in range(400)])
    assert (counts.sum(1) == len(balance)).all()
    assert counts.min() >= 1
    assert (np.abs(counts - factors) < 1.1).all()
    np.testing.assert_allclose(counts.mean(0), factors, atol=0.12)
    assert (balance.rows(5) == Balance.of(factors, seed=3).rows(5)).all()


def test_without_rare_classes_an_epoch_is_the_data_set():
    balance = Balance.of(np.ones(7), seed=0)
    assert all(balance.rows(epoch).tolist() == list(range(7)) for epoch in range(20))
