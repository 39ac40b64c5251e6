"""An exponential moving average of the trainable weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Keeps `average = d * average + (1 - d) * weight` with `d = min(decay, (1 + n) / (10 + n))` after n updates.

    The low decay at the start lets the average leave the initial weights quickly. Frozen weights are not copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are now."""
        self.updates += 1
        # the warm-up of TensorFlow's ExponentialMovingAverage
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        # average + (1 - decay) * (weight - average)
        torch._foreach_lerp_(list(self._averages.values()), [w.detach() for w in self._weights.values()], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block and its own weights again afterwards."""
        # Copies, since values are written into the parameters themselves: the optimiser holds these objects.
        own = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._copy(self._averages)
        try:
            yield
        finally:
            self._copy(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return dict(self._averages)

    def load_state_dict(self, averages: dict[str, Tensor], updates: int) -> None:
        """Restore saved averages and the number of updates they come from."""
        for name, average in self._averages.items():
            average.copy_(averages[name])
        self.updates = updates

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])
