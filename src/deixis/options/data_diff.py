"""The options of `deixis data diff`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.errors import OptionError
from deixis.options.checks import require
from deixis.options.marks import AtLeast0, Required
from deixis.options.types import Options


@dataclass(frozen=True)
class DataDiffOptions(Options):
    """Report what changed between two versions of annotations, in the same format or not."""

    data: Annotated[tuple[str, ...], Required("before.json after.json")] = ()
    """The old and the new version, in any formats (docs/formats.md)."""
    images: tuple[Path, ...] = ()
    """Folder of the images, if the annotations do not name it: one for both, or one for each."""
    format: str | None = None
    """Format of both; recognised if not given."""
    output: Path | None = None
    """HTML page to write, with pictures of the images that changed."""
    pictures: AtLeast0 = 24
    """Changed images that the page shows."""
    show: AtLeast0 = 10
    """Changed images that are listed; 0 lists all."""
    json: bool = False
    """Print everything as JSON."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        if len(self.data) != 2:
            raise OptionError(
                f"--data: expected two data sets, as in 'deixis data diff a.json b.json', got {len(self.data)}"
            )
        require(len(self.images) in (0, 1, 2), "images", self.images, "one folder, or one for each version")
