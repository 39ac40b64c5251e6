"""The options of `deixis data split`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from deixis.options.annotated_data import AnnotatedData, ClassTools, WrittenFormat
from deixis.options.checks import require
from deixis.options.marks import Also, AtLeast0, Removed, Required
from deixis.options.old_names import knows_old_names


@knows_old_names
@dataclass(frozen=True)
class DataSplitOptions(AnnotatedData, ClassTools):
    """Split a data set: copies of an image stay together, each class is shared out evenly."""

    output: Annotated[Path | None, Required("parts/")] = None
    """Folder for the parts; it must not exist, or be empty."""
    fractions: tuple[float, ...] = (0.8, 0.2)
    """Shares of train and val, or of train, val and test, as in --fractions 0.8 0.1 0.1."""
    to: Annotated[str | None, WrittenFormat()] = None
    """Format to write; that of the data if not given."""
    image_files: Literal["link", "copy"] = "link"
    """Link to the images where they are, or copy them."""
    seed: AtLeast0 = 0
    """Decides among equally good splits; the same seed gives the same split."""
    num_workers: Annotated[AtLeast0, Also("workers")] = 2
    """Threads that decode images to find copies."""

    REMOVED = MappingProxyType({**ClassTools.REMOVED, "val": Removed(None, "give both shares: --fractions 0.8 0.2")})

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        two_or_three = len(self.fractions) in (2, 3) and all(0 < f < 1e6 for f in self.fractions)
        require(two_or_three, "fractions", self.fractions, "two or three numbers above 0")
