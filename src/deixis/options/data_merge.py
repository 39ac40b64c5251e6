"""The options of `deixis data merge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.annotated_data import WrittenFormat
from deixis.options.checks import require
from deixis.options.marks import AtLeast0, Required
from deixis.options.types import Options


@dataclass(frozen=True)
class DataMergeOptions(Options):
    """Merge data sets of any formats into one; classes are one where their names are."""

    data: Annotated[tuple[str, ...], Required("a/labels.json b/data.yaml")] = ()
    """The data sets, two or more, in any formats (docs/formats.md)."""
    images: tuple[Path, ...] = ()
    """Folder of the images, if the annotations do not name it: one for all data sets, or one for each."""
    format: str | None = None
    """Format of all data sets; recognised if not given."""
    output: Annotated[Path | None, Required("merged/")] = None
    """Folder to write; it must not exist, or be empty."""
    to: Annotated[str | None, WrittenFormat()] = None
    """Format to write; that of the first data set if not given."""
    names: Literal["ask", "merge", "separate"] = "ask"
    """What becomes of names that may be one class, as cat and Cats: ask on a terminal, one class, or two."""
    rename: tuple[str, ...] = ()
    """New names of classes, as in --rename n01440764=tench; two classes of one name become one."""
    merge: tuple[str, ...] = ()
    """Classes that become one, as in --merge cat,Cats=cat."""
    duplicates: Literal["keep", "first"] = "keep"
    """Images that several data sets have, which are reported: keep all, or the first of each and its objects."""
    image_files: Literal["copy", "link"] = "copy"
    """Copy the images, or link to where they are."""
    num_workers: AtLeast0 = 2
    """Threads that decode images to find copies."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        if len(self.data) < 2:
            raise OptionError("--data: expected two data sets or more, as in 'deixis data merge a.json b.json'")
        one_each = f"one folder, or one per data set ({len(self.data)})"
        require(len(self.images) in (0, 1, len(self.data)), "images", self.images, one_each)
