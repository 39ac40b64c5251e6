"""Groups of options that commands share which use a model and do not train it."""

from __future__ import annotations

from dataclasses import dataclass

from deixis.options.marks import AtLeast1
from deixis.options.types import Options


@dataclass(frozen=True)
class UsedDetector(Options):
    """Model: which detector, on which device"""

    model: str = ""
    """"builtin", a folder (a run's teachers/ or checkpoints/best), or a hub id."""
    batch_size: AtLeast1 = 4
    """Images per batch."""
    prompt_names: AtLeast1 | None = None
    """Maximum number of names per prompt; as many as fit if not given."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""


@dataclass(frozen=True)
class UsedSegmenter(Options):
    """Model: which segmenter, on which device"""

    model: str = ""
    """"builtin", a folder (a run's teachers/ or checkpoints/best, or the released layout), or a hub id."""
    batch_size: AtLeast1 = 8
    """Phrases, masks or conversations per batch."""
    max_tiles: AtLeast1 = 12
    """Maximum number of tiles in which the vision-language model sees an image."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""
