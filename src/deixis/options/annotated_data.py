"""Options that the commands on annotations share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from deixis.errors import OptionError
from deixis.options.marks import AtLeast1, NotNegative, Removed, Required
from deixis.options.types import Mark, Options


@dataclass(frozen=True)
class AnnotatedData(Options):
    """Data: annotations and images"""

    data: Annotated[str, Required("labels.json")] = ""
    """Annotations in any format (docs/formats.md), or "scenes:split=demo_train,count=160,seed=1"."""
    images: Path | None = None
    """Folder of the images, if the annotations do not name it."""
    format: str | None = None
    """Format of the annotations; recognised if not given."""
    split: str | None = None
    """Part to read of a data set that has several, as in --split val."""


@dataclass(frozen=True)
class ClassTools(Options):
    """Classes: which are used, and under which names"""

    classes: tuple[str, ...] = ()
    """Use these classes only, in this order, as in --classes cat,dog; all images stay."""
    drop: tuple[str, ...] = ()
    """Classes to leave out, with their objects."""
    rename: tuple[str, ...] = ()
    """New names, as in --rename n01440764=tench; classes of one name become one."""
    merge: tuple[str, ...] = ()
    """Classes that become one, as in --merge car,bus=vehicle."""
    min_area: NotNegative = 0.0
    """Leave out objects of fewer square pixels."""
    sample: AtLeast1 | None = None
    """Use this many images, each class in as many as possible; not for validation data."""

    REMOVED = MappingProxyType({"sample_seed": Removed(0, "--sample draws the same images every time")})


class WrittenFormat(Mark):
    """A format of annotations that can be written."""

    def require(self, name: str, value: Any) -> None:
        """Raises OptionError for another word."""
        from deixis.data.formats.table import FORMATS, WRITTEN  # here, so that --help does not import every reader

        if value is not None and value not in WRITTEN:
            fault = f"{value} is read, not written" if value in FORMATS else f"unknown format {value!r}"
            raise OptionError(f"--{name}: {fault}; choose one of {', '.join(WRITTEN)}")
