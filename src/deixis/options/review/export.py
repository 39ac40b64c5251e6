"""The options of `deixis review export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deixis.options.annotated_data import WrittenFormat
from deixis.options.marks import Required
from deixis.options.types import Options


@dataclass(frozen=True)
class ReviewExportOptions(Options):
    """Write what was reviewed as annotations of any format, and print how much was corrected."""

    db: Annotated[str, Required("review.db")] = ""
    """The review."""
    part: Literal["reviewed", "all", "before"] = "reviewed"
    """reviewed: images that are finished or whose objects are all judged; all: the others too, with the labels that
    nobody rejected; before: the reviewed images as they were labelled."""
    to: Annotated[str, WrittenFormat()] = "coco"
    """Format to write; docs/formats.md lists them."""
    output: Annotated[Path | None, Required("reviewed/")] = None
    """Folder to write; it must not exist, or be empty."""
    image_files: Literal["copy", "link"] = "copy"
    """Copy the images, or link to where they are."""
    masks: bool = True
    """Write masks where the format has them; without, objects are their boxes."""
