"""The options of `deixis data split`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.annotated_data import AnnotatedData, ClassTools, WrittenFormat
from deixis.options.checks import require
from deixis.options.marks import Also, AtLeast0, Range, Required
from deixis.options.old_names import knows_old_names


@knows_old_names
@dataclass(frozen=True)
class DataSplitOptions(AnnotatedData, ClassTools):
    """Split a data set: copies of an image stay together, each class is shared out evenly."""

    output: Annotated[Path | None, Required("parts/")] = None
    """Folder for the parts; it must not exist, or be empty."""
    val: Annotated[float | None, Range(0, 1, open_low=True, open_high=True)] = None
    """Share of the validation part; a fifth if neither this nor --fractions is given."""
    fractions: tuple[float, ...] = ()
    """Shares of train and val, or of train, val and test, as in --fractions 0.8 0.1 0.1."""
    to: Annotated[str | None, WrittenFormat()] = None
    """Format to write; that of the data if not given."""
    image_files: Literal["link", "copy"] = "link"
    """Link to the images where they are, or copy them."""
    seed: AtLeast0 = 0
    """Decides among equally good splits; the same seed gives the same split."""
    num_workers: Annotated[AtLeast0, Also("workers")] = 2
    """Threads that decode images to find copies."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        if self.val is not None and self.fractions:
            raise OptionError("--val and --fractions exclude each other; give one of them")
        two_or_three = len(self.fractions) in (2, 3) and all(0 < f < 1e6 for f in self.fractions)
        require(not self.fractions or two_or_three, "fractions", self.fractions, "two or three numbers above 0")
