"""The options of `deixis refer new`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deixis.options.types import Options


@dataclass(frozen=True)
class ReferNewOptions(Options):
    """Write a small segmenter with random weights, to be trained from nothing."""

    output: Path = Path("new_segmenter")
    """Folder to write; it must not exist."""
    words: tuple[str, ...] = ()
    """Words that the tokenizer knows whole, besides those of the generated scenes; others are spelled by letter."""
    seed: int = 0
    """Seed of the weights."""
