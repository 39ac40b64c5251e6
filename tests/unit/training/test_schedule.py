"""The learning rate over a run."""

import pytest

from deixis.training.optim import Schedule


@pytest.mark.parametrize("kind", ["step", "cosine"])
def test_warm_up_rises_in_equal_steps_and_never_starts_at_zero(kind):
    schedule = Schedule(kind, total_updates=100, warmup_updates=4)
    assert [schedule.factor(n) for n in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("kind", ["step", "cosine"])
def test_a_run_of_one_update_has_a_learning_rate(kind):
    assert Schedule(kind, total_updates=1).factor(0) == 1.0


def test_step_drops_tenfold_once():
    schedule = Schedule("step", total_updates=100, drop_at=0.8)
    assert [schedule.factor(n) for n in (0, 79, 80, 99)] == [1.0, 1.0, 0.1, 0.1]


def test_cosine_falls_from_one_to_zero_after_the_warm_up():
    schedule = Schedule("cosine", total_updates=110, warmup_updates=10)
    assert schedule.factor(10) == 1.0
    assert schedule.factor(60) == pytest.approx(0.5)
    assert schedule.factor(110) == pytest.approx(0.0)
    factors = [schedule.factor(n) for n in range(10, 111)]
    assert factors == sorted(factors, reverse=True)


def test_cosine_stays_at_its_end_beyond_the_run():
    assert Schedule("cosine", total_updates=10).factor(50) == pytest.approx(0.0)
