"""Every option of the data commands, once: its flag, its YAML key, its help and its check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.checks import require
from deixis.options.marks import AtLeast0, Required
from deixis.options.types import Options


@dataclass(frozen=True)
class DataConvertOptions(Options):
    """Convert annotations from one format to another, and print what the other cannot hold."""

    data: Annotated[str, Required("labels.json")] = ""
    """Annotations: a file or folder of any known format, or "scenes:split=demo_train,count=160,seed=1"."""
    images: Path | None = None
    """Folder of the images, if the annotations do not name it."""
    format: str | None = None
    """Format of the annotations; recognised if not given."""
    split: str | None = None
    """Part to read of a data set that has several, as in --split val (VOC, YOLO, parquet)."""
    to: str = "coco"
    """Format to write; docs/formats.md lists them."""
    output: Path | None = None
    """Folder to write; it must not exist, or be empty."""
    image_files: Literal["copy", "link"] = "copy"
    """Copy the images, or link to where they are."""
    masks: bool = True
    """Write masks where the format has them; without, objects are their boxes."""
    dry_run: bool = False
    """Read everything, print what would be lost, write nothing."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        _require_format(self.to)
        if self.output is None and not self.dry_run:
            raise OptionError("--output is required, as in --output converted/")


@dataclass(frozen=True)
class DataCheckOptions(Options):
    """Find what is wrong with a data set before it is trained on, and write a cleaned copy."""

    data: Annotated[str, Required("labels.json")] = ""
    """Annotations in any format (docs/formats.md)."""
    images: Path | None = None
    """Folder of the images, if the annotations do not name it."""
    format: str | None = None
    """Format of the annotations; recognised if not given."""
    split: str | None = None
    """Part to read of a data set that has several, as in --split train (VOC, YOLO, parquet)."""
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
    to: str | None = None
    """Format of the cleaned copy; that of the data if not given."""
    image_files: Literal["copy", "link"] = "copy"
    """Copy the images of the cleaned copy, or link to where they are."""
    show: AtLeast0 = 5
    """Findings of a kind that are listed; 0 lists all."""
    json: bool = False
    """Print everything as JSON."""
    workers: AtLeast0 = 2
    """Threads that decode images."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        _require_format(self.to)


@dataclass(frozen=True)
class DataSplitOptions(Options):
    """Split a data set: copies of an image stay together, each class is shared out evenly."""

    data: Annotated[str, Required("labels.json")] = ""
    """Annotations in any format (docs/formats.md)."""
    images: Path | None = None
    """Folder of the images, if the annotations do not name it."""
    format: str | None = None
    """Format of the annotations; recognised if not given."""
    split: str | None = None
    """Part to read of a data set that has several."""
    output: Path | None = None
    """Folder for the parts; it must not exist, or be empty."""
    val: float | None = None
    """Share of the validation part; a fifth if neither this nor --fractions is given."""
    fractions: tuple[float, ...] = ()
    """Shares of train and val, or of train, val and test, as in --fractions 0.8 0.1 0.1."""
    to: str | None = None
    """Format to write; that of the data if not given."""
    image_files: Literal["link", "copy"] = "link"
    """Link to the images where they are, or copy them."""
    seed: AtLeast0 = 0
    """Decides among equally good splits; the same seed gives the same split."""
    workers: AtLeast0 = 2
    """Threads that decode images to find copies."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        _require_format(self.to)
        if self.output is None:
            raise OptionError("--output is required, as in --output parts/")
        if self.val is not None and self.fractions:
            raise OptionError("--val: expected either --val or --fractions, got both")
        require(self.val is None or 0 < self.val < 1, "val", self.val, "a share between 0 and 1")
        two_or_three = len(self.fractions) in (2, 3) and all(0 < f < 1e6 for f in self.fractions)
        require(not self.fractions or two_or_three, "fractions", self.fractions, "two or three numbers above 0")


@dataclass(frozen=True)
class DataStatsOptions(Options):
    """Count a data set and show it: a table here, plots and pictures in one HTML page."""

    data: Annotated[str, Required("labels.json")] = ""
    """Annotations in any format (docs/formats.md), or "scenes:split=demo_train,count=160,seed=1"."""
    images: Path | None = None
    """Folder of the images, if the annotations do not name it."""
    format: str | None = None
    """Format of the annotations; recognised if not given."""
    split: str | None = None
    """Part to read of a data set that has several."""
    output: Path | None = Path("stats.html")
    """The page to write."""
    pictures: AtLeast0 = 12
    """Pictures shown in it, spread over the classes."""
    show: AtLeast0 = 20
    """Classes listed in the terminal; 0 lists all."""


def _require_format(name: str | None) -> None:
    from deixis.data.formats.table import FORMATS  # here, so that --help does not import every reader

    if name is not None and name not in FORMATS:
        raise OptionError(f"--to: unknown format {name!r}; choose one of {', '.join(FORMATS)}")
