"""The options of `deixis detect words`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.annotated_data import ClassTools
from deixis.options.marks import AtLeast1, Required, WithWordings
from deixis.options.used_models import UsedDetector


@dataclass(frozen=True)
class DetectWordsOptions(UsedDetector, ClassTools):
    """Try wordings of classes on annotated images, and say which finds most; nothing is trained."""

    data: Annotated[str, Required("val.json")] = ""
    """Validation annotations in any format (docs/formats.md)."""
    images: Path | None = None
    """Folder of the images, if the annotations do not name it."""
    format: str | None = None
    """Format of the annotations; recognised if not given."""
    names: Annotated[tuple[str, ...], WithWordings(), Required('"car=car,automobile,sedan"')] = ()
    """The wordings of each class, as in --names "car=car,automobile,sedan" "bus=bus,coach"; other classes are asked for
    by their names."""
    max_images: AtLeast1 | None = 100
    """Measure only the first N images."""
    output: Path | None = None
    """Folder for words.json; nothing is written if not given."""
