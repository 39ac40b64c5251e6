"""The options of `deixis data convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.annotated_data import AnnotatedData, ClassTools, WrittenFormat
from deixis.options.marks import Share


@dataclass(frozen=True)
class DataConvertOptions(AnnotatedData, ClassTools):
    """Convert annotations from one format to another, and print what the other cannot hold."""

    to: Annotated[str, WrittenFormat()] = "coco"
    """Format to write; docs/formats.md lists them."""
    output: Path | None = None
    """Folder to write; it must not exist, or be empty."""
    image_files: Literal["copy", "link"] = "copy"
    """Copy the images, or link to where they are."""
    annotations: str = ""
    """Where --data is a list of COCO results (image_id, category_id, bbox, score): the annotations, in any format,
    whose images and classes it names."""
    threshold: Share | None = None
    """Lowest score of detections that are converted, where the data is a model's predictions; all if not given."""
    masks: bool = True
    """Write masks where the format has them; without, objects are their boxes."""
    dry_run: bool = False
    """Read everything, print what would be lost, write nothing."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        if self.output is None and not self.dry_run:
            raise OptionError("--output is required, as in --output converted/")
