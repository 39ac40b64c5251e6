"""The options of `deixis data check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deixis.options.annotated_data import AnnotatedData, ClassTools, WrittenFormat
from deixis.options.marks import Also, AtLeast0
from deixis.options.old_names import knows_old_names


@knows_old_names
@dataclass(frozen=True)
class DataCheckOptions(AnnotatedData, ClassTools):
    """Find what is wrong with a data set before it is trained on, and write a cleaned copy."""

    val_data: str = ""
    """Validation annotations: checked too, and for images that are on both sides."""
    val_images: Path | None = None
    """Folder of the validation images."""
    val_split: str | None = None
    """Part of the validation data to read."""
    model: str = ""
    """Model whose tokenizer, queries and image size the data is tried with: "builtin", a folder, or a hub id. Without
    it names are not tokenised, and the released models' 900 queries and 800 x 1333 pixels are assumed."""
    fix: Path | None = None
    """Folder for a cleaned copy of the data; it must not exist, or be empty. The data itself stays as it is."""
    to: Annotated[str | None, WrittenFormat()] = None
    """Format of the cleaned copy; that of the data if not given."""
    image_files: Literal["copy", "link"] = "copy"
    """Copy the images of the cleaned copy, or link to where they are."""
    show: AtLeast0 = 5
    """Findings of a kind that are listed; 0 lists all."""
    json: bool = False
    """Print everything as JSON."""
    num_workers: Annotated[AtLeast0, Also("workers")] = 2
    """Threads that decode images."""
