"""Every option of `deixis refer check`, once: its flag, its YAML key, its help and its check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deixis.errors import OptionError
from deixis.options.marks import AtLeast0, AtLeast1
from deixis.options.types import Options


@dataclass(frozen=True)
class ReferCheckOptions(Options):
    """Find what is wrong with phrases and masks before training; the data stays as it is."""

    data: tuple[str, ...] = ()
    """Data in any format (docs/formats.md), clips too (docs/clips.md); several are checked one after another."""
    images: Path | None = None
    """Folder of the images or videos, if the data does not name it."""
    format: str | None = None
    """Format of --data; recognised if not given."""
    refcoco_dir: Path | None = None
    """Folder of RefCOCO, RefCOCO+ or RefCOCOg, as in deixis refer train: each split that it uses."""
    sa1b_dir: Path | None = None
    """Folder of SA-1B, as in deixis refer train."""
    sa1b_max_samples: AtLeast1 = 10_000
    """Maximum number of images read from --sa1b-dir."""
    openimages_dir: Path | None = None
    """Folder of Open Images with segmentation CSV, masks/ and class descriptions."""
    sav_dir: Path | None = None
    """Folder of SA-V: sav_*.mp4 with sav_*_manual.json."""
    placeholder_captions: bool = False
    """Check the data as deixis refer train reads it with this switch: masks without a phrase have a placeholder."""
    objects: Literal["all", "single"] = "all"
    """Of class names: phrases mean all objects of a class, or only classes with one object are asked for."""
    max_images: AtLeast1 | None = None
    """Check only the first N images or clips of each."""
    tiny: AtLeast0 = 16
    """Report masks with fewer pixels than this."""
    decode: bool = True
    """Decode every picture; with --no-decode pictures are not opened."""
    model: str = ""
    """A segmenter whose conversations are written, to find those that are too long: "builtin", a folder, a run's folder
    or a hub id."""
    max_tokens: AtLeast1 = 8192
    """With --model: maximum number of tokens of a conversation in training."""
    max_tiles: AtLeast1 = 12
    """With --model: maximum number of tiles in which it sees an image."""
    clip_frames: AtLeast1 = 5
    """With --model: maximum number of frames of a clip in a step."""
    max_masks: AtLeast1 = 5
    """With --model: maximum number of phrases asked of one image in a step."""
    behaviour: Literal["deixis", "sa2va"] = "deixis"
    """With --model: whose answers it is to learn; see deixis refer train."""
    show: AtLeast0 = 5
    """Findings of a kind that are listed; 0 lists all."""
    json: bool = False
    """Print everything as JSON."""
    output: Path | None = None
    """JSON file for all findings."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        if not (self.data or self.refcoco_dir or self.sa1b_dir or self.openimages_dir or self.sav_dir):
            raise OptionError("--data is required, as in --data phrases.json")
        super().check()
