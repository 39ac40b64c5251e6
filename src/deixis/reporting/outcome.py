"""What a run came to: figures before training, of the best epoch and of the last, and whether they can be trusted.

The best epoch is chosen on validation data, so its validation figures are the largest of several and optimistic. Test
data, which chooses nothing, gives unbiased figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OPTIMISTIC = "on the validation data that chose the epoch, hence optimistic; --test-data gives unbiased figures"


@dataclass(frozen=True)
class Measured:
    """Figures of one state of the weights.

    Attributes:
        epoch: 0 before training, from 1 on.
        validation, test: metrics by name; empty where they were not measured.
    """

    epoch: int
    validation: Mapping[str, Any]
    test: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        score: the metric that chooses the best epoch.
        before: None where it was not measured.
        best: of the weights that are kept.
        last: of the last epoch.
    """

    score: str
    before: Measured | None
    best: Measured
    last: Measured

    @property
    def reported_on(self) -> str:
        """ "test", or "validation", whose figures are optimistic."""
        return "test" if self.best.test else "validation"

    def reported(self, measured: Measured | None) -> Mapping[str, Any] | None:
        """The figures to report of a state; None where they were not measured."""
        return None if measured is None else getattr(measured, self.reported_on) or None

    @property
    def gained(self) -> bool:
        """Whether the best epoch beats the model before training on validation data; True if that has no score."""
        before = math.nan if self.before is None else self._score(self.before.validation)
        return math.isnan(before) or self._score(self.best.validation) > before

    def lines(self, names: Sequence[str]) -> list[str]:
        """The result in words, the most important line of each metric first."""
        before, best = self.reported(self.before), self.reported(self.best)
        assert best is not None
        where = f"on test data ({best['images']} images)" if self.reported_on == "test" else OPTIMISTIC
        lines = [
            f"{before_and_after(name, None if before is None else before.get(name), best[name])} {where}"
            for name in names
            if name in best
        ]
        lines += [f"best epoch {self._of(self.best)}", f"last epoch {self._of(self.last)}"]
        return lines + self.warnings()

    def warnings(self) -> list[str]:
        """Why the figures may mislead, one line for each reason."""
        found: list[str] = []
        if math.isnan(self._score(self.best.validation)):
            found.append(
                f"{self.score} cannot be measured on this validation data, so it chose no epoch: the weights kept are "
                f"those of epoch {self.best.epoch}; give --val-data with something to measure"
            )
        if self.before is None:
            return found
        before, last = (self._score(one.validation) for one in (self.before, self.last))
        if not self.gained:
            found.append(
                f"no gain: no epoch was better on validation data than the model before training ({self.score} "
                f"{before:.4f}); the weights kept are those of epoch {self.best.epoch}"
            )
        elif last < before:
            found.append(
                f"the last epoch fell below the model before training ({self.score} {before:.4f} on validation data): "
                "the run is unstable; lower --learning-rate or train for fewer epochs"
            )
        first, after = self._score(self.before.test), self._score(self.best.test)
        if self.gained and self.reported_on == "test" and after <= first:
            found.append(
                f"no gain on test data: {self.score} {first:.4f} before, {after:.4f} after; the gain on validation "
                "data does not hold up"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        states = {"before": self.before, "best": self.best, "last": self.last}
        plain = {
            name: None
            if state is None
            else {"epoch": state.epoch, "validation": dict(state.validation), "test": dict(state.test) or None}
            for name, state in states.items()
        }
        optimistic = self.reported_on == "validation"
        return {"score": self.score, "reported_on": self.reported_on, "optimistic": optimistic, **plain}

    def _of(self, measured: Measured) -> str:
        parts = {"validation": measured.validation, "test": measured.test}
        scores = {part: self._score(figures) for part, figures in parts.items() if figures}
        shown = (f"{part} {'not measured' if math.isnan(one) else f'{one:.4f}'}" for part, one in scores.items())
        return f"{measured.epoch}: {self.score} {', '.join(shown)}"

    def _score(self, figures: Mapping[str, Any]) -> float:
        """NaN where it was not measured, or the data has nothing to measure it on."""
        return float(figures.get(self.score, math.nan))


def before_and_after(name: str, before: float | None, after: float) -> str:
    """A metric on one line.

    >>> before_and_after("AP", 0.25, 0.5)
    'AP before 0.2500, after 0.5000 (+0.2500)'
    """
    if before is None:
        return f"{name} {after:.4f}"
    return f"{name} before {before:.4f}, after {after:.4f} ({after - before:+.4f})"
