"""Options of `deixis demo` and `deixis demo refer`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deixis.options.types import Options


@dataclass(frozen=True)
class DemoOptions(Options):
    """Fine-tune the built-in detector on new names, offline, in minutes."""

    output: Path = Path("runs")
    """Folder of the runs."""
    images: int = 160
    """Generated training images."""
    epochs: int = 10
    """Passes over them."""
    seed: int = 0
    """Random seed."""


@dataclass(frozen=True)
class ReferDemoOptions(Options):
    """Fine-tune the built-in segmenter on new shapes, offline, in minutes."""

    output: Path = Path("runs")
    """Folder of the runs."""
    images: int = 240
    """Generated training images."""
    epochs: int = 6
    """Passes over them."""
    seed: int = 0
    """Random seed."""
