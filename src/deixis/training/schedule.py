"""The learning rate as a function of the number of updates: it has no state, so only that number must be saved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then one step down or a cosine to zero.

    Attributes:
        total_updates: updates in the whole run.
        warmup_updates: updates until the full learning rate is reached.
        drop_at: fraction of the run after which "step" divides the rate by ten.
    """

    kind: Literal["step", "cosine"]
    total_updates: int
    warmup_updates: int = 0
    drop_at: float = 0.85

    def factor(self, updates: int) -> float:
        """The factor on the full learning rate for the update after `updates` others.

        >>> Schedule("step", total_updates=100, warmup_updates=4).factor(0)
        0.25
        """
        if updates < self.warmup_updates:
            return (updates + 1) / self.warmup_updates  # never 0: the first update changes the weights
        if self.kind == "step":
            return 1.0 if updates < self.drop_at * self.total_updates else 0.1
        span = max(1, self.total_updates - self.warmup_updates)
        # SGDR, arXiv 1608.03983, eq. 5, to 0
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (updates - self.warmup_updates) / span)))
