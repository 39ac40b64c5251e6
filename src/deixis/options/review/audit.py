"""The options of `deixis review audit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.errors import OptionError
from deixis.options.marks import RARE, AtLeast0, AtLeast1, Required, Share
from deixis.options.types import Options


@dataclass(frozen=True)
class ReviewAuditOptions(Options):
    """How many of a review's objects are right, per class, from a random sample that people judge on its page."""

    db: Annotated[str, Required("review.db")] = ""
    """The review."""
    draw: AtLeast1 | None = None
    """Draw a new sample of this many objects; then judge them with "audit sample only" on the page."""
    seed: Annotated[AtLeast0, RARE] = 0
    """Decides which objects --draw takes."""
    accept: Share = 0.95
    """Precision of what may be accepted unseen: from the proposed score on, the interval's lower end reaches it."""
    reject: Share = 0.1
    """Precision of what may be rejected unseen: below the proposed score, the interval's upper end is at most this."""
    output: Path | None = None
    """JSON file for the figures."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        if self.reject >= self.accept:
            raise OptionError(f"--reject: expected a share below --accept ({self.accept:g}), got {self.reject:g}")
