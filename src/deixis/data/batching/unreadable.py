"""Training continues without a few damaged pictures: each is named and counted, and another takes its place."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from deixis.errors import UnreadableImageError


class Replaced(NamedTuple):
    """An item in the place of one that cannot be read."""

    item: Any
    error: UnreadableImageError


class WithReplaced(NamedTuple):
    """A batch, and what some of its items replace."""

    batch: Any
    errors: list[UnreadableImageError]


class UnreadableImages:
    """The damaged pictures of one run and process.

    Args:
        limit: how many are left out; one more raises.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.named: list[str] = []

    def note(self, error: UnreadableImageError) -> None:
        """Count a picture, and warn of it, the first time that it occurs.

        Raises:
            UnreadableImageError: it is one too many.
        """
        text = str(error)
        if text in self.named:
            return
        if len(self.named) >= self.limit:
            more = f"{self.limit} others were left out before it" if self.limit else "none may be left out"
            raise UnreadableImageError(
                f"{text}; {more}: repair them (deixis data check names all), or raise --max-unreadable-images"
            )
        self.named.append(text)
        warnings.warn(
            f"{text}; another picture takes its place in training ({len(self.named)} of at most {self.limit})",
            stacklevel=2,
        )
