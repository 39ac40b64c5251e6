"""The options of `deixis model convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.marks import Required, Sides
from deixis.options.types import Options

TOKENIZER = "bert-base-uncased"
"""Of the checkpoints that contain none."""


@dataclass(frozen=True)
class ModelConvertOptions(Options):
    """Import a checkpoint of IDEA-Research or MMDetection as a transformers folder, or export a model to another
    layout."""

    model: Annotated[str, Required("groundingdino_swint_ogc.pth")] = ""
    """A .pth file (Grounding DINO, MM-Grounding-DINO, LLMDet); or, with --to, a folder, adapter folder or hub id; or a
    run's checkpoints/last, of which the weights are written, averaged if the run has --ema-decay."""
    output: Path = Path("converted")
    """Folder to write, or with --to idea or mmdetection the .pth file; it must not exist."""
    tokenizer: str | None = None
    """Folder with tokenizer.json or vocab.txt, or hub id, for a .pth file, which contains no tokenizer;
    bert-base-uncased if not given. For a released segmenter: a tokenizer in place of its own."""
    image_size: Annotated[tuple[int, int], Sides()] = (800, 1333)
    """Shorter and longest side of the images in pixels, which a .pth file does not contain."""
    to: Literal["transformers", "idea", "mmdetection", "sa2va"] = "transformers"
    """Layout to write. sa2va: that of released segmenters. transformers, for a segmenter: two halves in one folder."""
    like: str | None = None
    """With --to sa2va: a released folder, or a hub id, whose config.json and code are copied, so that Sa2VA's own code
    loads it."""
    dry_run: bool = False
    """Recognise and check everything, write nothing; needs no tokenizer."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        if self.like is not None and self.to != "sa2va":
            raise OptionError(f"--like needs --to sa2va, got --to {self.to}")
