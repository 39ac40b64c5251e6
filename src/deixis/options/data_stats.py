"""The options of `deixis data stats`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deixis.options.annotated_data import AnnotatedData
from deixis.options.marks import AtLeast0


@dataclass(frozen=True)
class DataStatsOptions(AnnotatedData):
    """Count a data set and show it: a table here, plots and pictures in one HTML page."""

    output: Path | None = Path("stats.html")
    """The page to write."""
    pictures: AtLeast0 = 12
    """Pictures shown in it, spread over the classes."""
    show: AtLeast0 = 20
    """Classes listed in the terminal; 0 lists all."""
