"""Every option of the data commands, once: its flag, its YAML key, its help and its check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deixis.errors import OptionError


@dataclass(frozen=True)
class DataConvertOptions:
    """Turn annotations of one format into another, and say what the other cannot hold."""

    data: str = ""
    """Annotations: a file or folder of any known format, or "scenes:split=demo_train,count=160,seed=1"."""
    images: Path | None = None
    """Folder of the images, where the annotations do not say."""
    format: str | None = None
    """Format of the annotations; recognised when not given."""
    split: str | None = None
    """Part to read of a data set that has several, as in --split val (YOLO, parquet)."""
    to: Literal["coco", "lvis", "voc", "yolo", "odvg", "openimages", "labelme", "parquet"] = "coco"
    """Format to write."""
    output: Path | None = None
    """Folder to write; it must not exist, or be empty."""
    image_files: Literal["copy", "link"] = "copy"
    """Copy the images, or link to where they are."""
    masks: bool = True
    """Write masks where the format has them; without, objects are their boxes."""
    dry_run: bool = False
    """Read everything, say what would be lost, write nothing."""

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        if not self.data:
            raise OptionError(f"--data: got {self.data!r}, wanted the annotations, as in --data labels.json")
        if self.output is None and not self.dry_run:
            raise OptionError("--output: got nothing, wanted the folder to write")
