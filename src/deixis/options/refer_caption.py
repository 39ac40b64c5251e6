"""Every option of the commands that describe masks: its flag, its help and its check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deixis.options.checks import A_SEGMENTER, at_least, choose_model, require, require_model
from deixis.options.types import Options


@dataclass(frozen=True)
class ReferCaptionOptions(Options):
    """Describe masks: write a caption and its score for each, and draw them."""

    masks: str = ""
    """Masks in any format (docs/formats.md): plain JSON, COCO, SA-1B, Open Images; or "scenes:split=refer_seen,…"."""
    images: Path | None = None
    """Folder of the pictures, where the masks' file does not say."""
    format: str | None = None
    """Format of the masks; recognised when not given."""
    model: str = ""
    """"builtin", a folder (a run's teachers/ or checkpoints/best, or the released layout), or a hub id."""
    output: Path = Path("captions")
    """Folder for captions.json, which `refer train --data` reads, and pictures/."""
    measure: bool = False
    """Compare with the data's own phrases: CIDEr-D, METEOR (where Java and pycocoevalcap are installed), exact matches,
    by region size; metrics.json."""
    temperature: float = 0.0
    """0 takes the likeliest word each time; above, words are drawn, the likelier the lower it is."""
    top_p: float = 1.0
    """Draw only among the likeliest words that together have this probability."""
    seed: int = 0
    """Seed of what is drawn."""
    max_new_tokens: int = 40
    """Longest caption, in tokens."""
    max_images: int | None = None
    """Describe only the first so many images."""
    batch_size: int = 8
    """Regions a batch."""
    max_tiles: int = 12
    """Most tiles in which the vision-language model sees an image."""
    pictures: bool = True
    """Draw the captions on the pictures."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU if there is one, when not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, self.masks)

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        _model_and_masks(self.model, self.masks)
        require(self.temperature >= 0, "temperature", self.temperature, "0 or more")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "a number above 0, at most 1")
        at_least(self, "seed", 0)
        for name in ("max_new_tokens", "max_images", "batch_size", "max_tiles"):
            at_least(self, name, 1)


@dataclass(frozen=True)
class ReferCycleOptions(Options):
    """Write a captioned data set from masks alone: describe each mask, look for what was said, keep what is found."""

    masks: str = ""
    """Masks in any format (docs/formats.md): SA-1B, COCO, Open Images, plain JSON; or "scenes:split=refer_seen,…"."""
    images: Path | None = None
    """Folder of the pictures, where the masks' file does not say."""
    format: str | None = None
    """Format of the masks; recognised when not given."""
    model: str = ""
    """"builtin", a folder (a run's teachers/ or checkpoints/best, or the released layout), or a hub id."""
    tokenizer: str | None = None
    """Tokenizer of a released Sa2VA, in place of its own, where that cannot be used: a folder or hub id."""
    output: Path = Path("cycle")
    """Folder for captions.json (what is kept, for `refer train --data`), cycle.jsonl (everything) and metrics.json.
    A command that was interrupted goes on where it stopped."""
    threshold: float = 0.7
    """Least IoU of a mask with the mask that its caption gives, for the caption to be kept."""
    candidates: int = 1
    """Captions to try for each mask: the likeliest and others that are drawn; the one that is found best counts."""
    seed: int = 0
    """Seed of what is drawn."""
    max_new_tokens: int = 40
    """Longest caption, in tokens."""
    max_images: int | None = None
    """Only the first so many images; for SA-1B it bounds start-up time too."""
    batch_size: int = 8
    """Regions, or captions to look for, a batch."""
    max_tiles: int = 12
    """Most tiles in which the vision-language model sees an image."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU if there is one, when not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, self.masks)

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        _model_and_masks(self.model, self.masks)
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "a number from 0 to 1")
        at_least(self, "seed", 0)
        for name in ("candidates", "max_new_tokens", "max_images", "batch_size", "max_tiles"):
            at_least(self, name, 1)


def _model_and_masks(model: str, masks: str) -> None:
    require(bool(masks), "masks", masks, "masks, as in --masks labels.json")
    require_model(model, A_SEGMENTER)
