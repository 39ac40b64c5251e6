"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from deixis.training.ema import WeightAverage


def test_average_follows_the_ramped_decay():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.9)
    nn.init.ones_(model.weight)
    average.update()
    decay = 2 / 11  # (1 + 1) / (10 + 1), while that is below 0.9
    assert average.state_dict()["weight"].item() == pytest.approx(1 - decay)


def test_decay_is_the_limit_in_the_long_run():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.5)
    average.updates = 1000
    nn.init.ones_(model.weight)
    average.update()
    assert average.state_dict()["weight"].item() == pytest.approx(0.5)


def test_applied_swaps_and_restores_even_after_an_error():
    model = nn.Linear(2, 2)
    own = model.weight.detach().clone()
    average = WeightAverage(model, decay=0.9)
    average.load_state_dict({name: torch.full_like(w, 7.0) for name, w in model.named_parameters()}, updates=3)
    with average.applied():
        assert bool((model.weight == 7.0).all())
    assert torch.equal(model.weight, own)

    def fail():
        with average.applied():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(model.weight, own)


def test_frozen_weights_are_not_copied():
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert list(WeightAverage(model, 0.9).state_dict()) == ["bias"]
