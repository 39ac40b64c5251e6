"""What a field of options states besides its type: `lora_r: Annotated[AtLeast1, Also("lora_rank")] = 16`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from deixis.errors import OptionError
from deixis.options.checks import require
from deixis.options.types import Mark, flag_of


@dataclass(frozen=True)
class Range(Mark):
    """Numbers that an option accepts, or that each of its values must be; None is in every range.

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

    def require(self, name: str, value: Any) -> None:
        """Raises OptionError for a number outside."""
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        require(all(map(self.holds, values)), name, value, str(self))

    def __str__(self) -> str:
        if self.high is None:
            return f"a number above {self.low}" if self.open_low else f"{self.low} or more"
        if self.open_low:
            return f"a number above {self.low}, {'below' if self.open_high else 'at most'} {self.high}"
        return f"a number from {self.low} to {'below ' if self.open_high else ''}{self.high}"


AtLeast0 = Annotated[int, Range(0)]
AtLeast1 = Annotated[int, Range(1)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
Share = Annotated[float, Range(0, 1)]
ShareBelow1 = Annotated[float, Range(0, 1, open_high=True)]


@dataclass(frozen=True)
class Also(Mark):
    """Another name of an option, as a flag, as a YAML key and in Python: the one that it had before."""

    name: str


@dataclass(frozen=True)
class Required(Mark):
    """A command cannot run without this option; `example` is a value of it."""

    example: str

    def require(self, name: str, value: Any) -> None:
        """Raises OptionError for an option that was not given."""
        if value in (None, "", (), ("",)):
            flag = flag_of(name)
            raise OptionError(f"{flag} is required, as in {flag} {self.example}")


class NotBlank(Mark):
    """Texts that are more than spaces."""

    def require(self, name: str, value: Any) -> None:
        """Raises OptionError for a blank one."""
        require(all(text.strip() for text in value), name, value, "text that is not blank")


class Sides(Mark):
    """The shorter and the longest side of an image in pixels."""

    def require(self, name: str, value: Any) -> None:
        """Raises OptionError for sides that are too small, or in the wrong order."""
        fine = value is None or 32 <= value[0] <= value[1]
        require(fine, name, value, "the shorter and the longest side, of 32 pixels or more")


class WithWordings(Mark):
    """Names, some with wordings; a mapping of YAML or Python, `{car: [car, sedan]}`, is the texts `car=car,sedan`."""

    def plain(self, value: Any) -> Any:
        """The texts of a mapping.

        Raises:
            OptionError: a wording is no text.
        """
        if not isinstance(value, Mapping):
            return value
        from deixis.data.detect.wordings import text_of  # imports NumPy, which --help does without

        for name, words in value.items():
            each = words if isinstance(words, list | tuple) else (words,)
            if not all(isinstance(one, str) for one in (name, *each)):
                raise OptionError(f"names: expected wordings as texts for each class, got {name!r}: {words!r}")
        return [text_of(name, [words] if isinstance(words, str) else words) for name, words in value.items()]


@dataclass(frozen=True)
class Gone(Mark):
    """A value of earlier versions; `instead` says what replaced it, to complete "was removed; ..."."""

    value: Any
    instead: str

    def refuse(self, where: str, value: Any) -> None:
        """Raises OptionError for the value that is gone."""
        if value == self.value:
            raise OptionError(f"{where}: {value} was removed; {self.instead}")


class Rare(Mark):
    """A rarely used option: `--help-all` shows it, `--help` does not."""


RARE = Rare()


@dataclass(frozen=True)
class Removed:
    """An option of earlier versions, or of another command only, in the `REMOVED` of its kind.

    Args:
        default: what it was where nobody gave it; the files of earlier runs hold it, and it is ignored.
        instead: what replaced it, to complete "--words-first was removed; ...".
        fact: what is so, in place of "was removed".
    """

    default: Any
    instead: str
    fact: str = "was removed"
