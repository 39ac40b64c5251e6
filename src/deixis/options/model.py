"""Options of `deixis model convert | info | merge | export`; see `recipes.options` for how they are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deixis.options.checks import require
from deixis.options.types import Options

TOKENIZER = "bert-base-uncased"
"""Of the checkpoints that carry none."""


@dataclass(frozen=True)
class ModelConvertOptions(Options):
    """Turn a checkpoint of IDEA-Research or MMDetection into a transformers folder, or a model into another layout."""

    model: str = ""
    """A .pth file (Grounding DINO, MM-Grounding-DINO, LLMDet); or, with --to, a folder, adapter folder or hub id; or a
    run's checkpoints/last, of which the weights are written, averaged ones where the run has --ema-decay."""
    output: Path = Path("converted")
    """Folder to write, or with --to idea or mmdetection the .pth file; it must not exist."""
    tokenizer: str | None = None
    """Folder with tokenizer.json or vocab.txt, or hub id: a .pth file carries no tokenizer; bert-base-uncased if not
    given. Of a released segmenter: a tokenizer in place of its own, where that cannot be used."""
    image_size: tuple[int, int] = (800, 1333)
    """Shorter and longest side of the images in pixels: a .pth file does not say."""
    to: Literal["transformers", "idea", "mmdetection", "sa2va"] = "transformers"
    """Layout to write: sa2va is that of released segmenters; of a segmenter, transformers is two halves in a folder."""
    like: Path | None = None
    """With --to sa2va: a released folder whose config.json and code are copied, for Sa2VA's own code to load."""
    dry_run: bool = False
    """Recognise and check everything, write nothing; needs no tokenizer."""

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        require(bool(self.model), "model", self.model, "what to convert, as in --model groundingdino_swint_ogc.pth")
        require(self.like is None or self.to == "sa2va", "like", self.like, "--to sa2va with it")
        short_px, long_px = self.image_size
        require(32 <= short_px <= long_px, "image_size", self.image_size, "32 <= shorter side <= longest side")


@dataclass(frozen=True)
class ModelInfoOptions(Options):
    """Say what a model is: flavour, sizes, parts and parameters, tokenizer, image size, adapters."""

    model: str = "builtin"
    """"builtin", a folder, an adapter folder, a hub id, or a .pth file."""

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        require(bool(self.model), "model", self.model, "a model, as in --model runs/raccoons/checkpoints/best")


@dataclass(frozen=True)
class ModelMergeOptions(Options):
    """Merge an adapter into its base, or go part of the way from a base to what fine-tuning made of it."""

    model: str = ""
    """The tuned model: an adapter folder, which is merged into its base, or a whole model."""
    base: str = ""
    """What fine-tuning started from; needed with --weight for a whole model, an adapter knows its own."""
    weight: float = 1.0
    """How far to go from the base (0) to the tuned model (1); less than 1 gives back some of what was forgotten."""
    output: Path = Path("merged")
    """Folder to write, in transformers' layout; it must not exist."""
    dry_run: bool = False
    """Read and check everything, write nothing."""

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        wanted = "the tuned model or adapter, as in --model runs/mine/teachers/grounding_dino"
        require(bool(self.model), "model", self.model, wanted)
        require(0 <= self.weight <= 1, "weight", self.weight, "a number from 0 (the base) to 1 (the tuned model)")


@dataclass(frozen=True)
class ModelExportOptions(Options):
    """Write a detector as ONNX for fixed names and images of any size, and check it in onnxruntime."""

    model: str = "builtin"
    """"builtin", a folder, an adapter folder, or a hub id."""
    names: tuple[str, ...] = ()
    """What to look for, as in --names raccoon "traffic light"; the names are built into the file. Those that the model
    was fine-tuned on, where none are given."""
    output: Path = Path("detector.onnx")
    """File to write; it must not exist."""
    check_sizes: tuple[tuple[int, int], ...] = ()
    """Heights and widths in pixels of two or more images to check on; two made from the image size if not given."""
    overwrite: bool = False
    """Replace the file."""
    dry_run: bool = False
    """Read the model and build the prompt, write nothing."""

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        fine = all(side >= 32 for size in self.check_sizes for side in size)
        require(fine, "check_sizes", self.check_sizes, "heights and widths of 32 pixels or more")
