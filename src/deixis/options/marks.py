"""What a field of options states besides its type: `lora_r: Annotated[AtLeast1, Also("lora_rank")] = 16`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from deixis.options.checks import require
from deixis.options.types import hints_of, marks_of


@dataclass(frozen=True)
class Range:
    """Numbers that an option accepts.

    Args:
        low: None for no lower bound.
        open_low: `low` itself is invalid; `open_high` likewise.
    """

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in it."""
        above = self.low is None or value > self.low or (value == self.low and not self.open_low)
        below = self.high is None or value < self.high or (value == self.high and not self.open_high)
        return above and below

    def __str__(self) -> str:
        if self.high is None:
            return f"a number above {self.low}" if self.open_low else f"{self.low} or more"
        return f"a number from {self.low} to {'below ' if self.open_high else ''}{self.high}"


AtLeast0 = Annotated[int, Range(0)]
AtLeast1 = Annotated[int, Range(1)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
Share = Annotated[float, Range(0, 1)]
ShareBelow1 = Annotated[float, Range(0, 1, open_high=True)]


@dataclass(frozen=True)
class Also:
    """Another name of an option, as a flag, as a YAML key and in Python: the one that it had before."""

    name: str


@dataclass(frozen=True)
class Removed:
    """An option of earlier versions, in the `REMOVED` of its kind.

    Args:
        default: what it was where nobody gave it; the files of earlier runs hold it, and it is ignored.
        instead: what replaced it, to complete "--words-first was removed; ...".
    """

    default: Any
    instead: str


def check_ranges(options: Any) -> None:
    """Raises OptionError for the first value outside the range of its field; None is in every range."""
    for name, hint in hints_of(type(options)).items():
        value = getattr(options, name)
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        for allowed in marks_of(hint):
            if isinstance(allowed, Range):
                require(all(map(allowed.holds, values)), name, value, str(allowed))
