"""Forgetting: AP on new and on old data for weights between the base model and the fine-tuned one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TradeOff:
    """A model between base and fine-tuned, measured on the new data and on data that the base model knew.

    Attributes:
        weight: position from the base (0) to the fine-tuned model (1); with LoRA, the factor on the adapters' scale.
        AP_new: on the fine-tuning task's data, in [0, 1].
        AP_old: on the data that shows forgetting, in [0, 1].
    """

    weight: float
    AP_new: float
    AP_old: float

    @property
    def balance(self) -> float:
        """Harmonic mean of the two APs: high only where both are.

        >>> round(TradeOff(0.5, AP_new=0.6, AP_old=0.3).balance, 3)
        0.4
        """
        both = self.AP_new + self.AP_old
        return 2 * self.AP_new * self.AP_old / both if both > 0 else 0.0


def knee(points: Sequence[TradeOff]) -> TradeOff:
    """The point with the largest `balance`; among equal ones, the one nearest to the fine-tuned model.

    >>> knee([TradeOff(0, 0.1, 0.8), TradeOff(0.5, 0.6, 0.7), TradeOff(1, 0.65, 0.4)]).weight
    0.5
    """
    return max(points, key=lambda point: (point.balance, point.weight))
