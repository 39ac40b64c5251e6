"""Options of `deixis refer memory`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deixis.options.checks import at_least, require
from deixis.options.types import Options


@dataclass(frozen=True)
class ReferMemoryOptions(Options):
    """Train the memory that follows objects through videos; a segmenter's masks in images stay as they are."""

    model: str = ""
    """A segmenter's folder or hub id. One without memory is given a fresh one."""
    data: str = ""
    """Clips: annotations of SA-V, MeViS, Ref-YouTube-VOS or DAVIS, or scenes:split=clip_train,count=400,seed=1."""
    videos: Path | None = None
    """Folder of videos or frames, where it is not with the annotations."""
    output: Path = Path("segmenter_with_memory")
    """Folder to write; it must not exist."""
    given: Literal["auto", "phrases", "masks"] = "auto"
    """What is given in some frames. phrases: what the segmenter says of them, and what a phrase means stays beside the
    memory in every frame; for segmenters of the deixis behaviour and clips with sentences. masks: the true masks, as
    SAM 2's memory was trained. auto: phrases wherever it can be."""
    prompt_frames: int = 5
    """With phrases: frames of a clip in which they are looked for, as when following; a random part is taken."""
    fresh: bool = False
    """Start the memory anew, also where there is one."""
    steps: int = 600
    """Steps of the optimiser."""
    frames: int = 6
    """Labelled frames in a window; with phrases those that are followed."""
    stride: int = 3
    """Labelled frames from one to the next at most."""
    objects: int = 3
    """Objects followed in a window at most."""
    batch_size: int = 2
    """Windows a step."""
    learning_rate: float = 1e-3
    """For a fresh, small memory; a trained one takes 1e-5."""
    layers: int = 2
    """Of a fresh memory's attention."""
    seed: int = 0
    """Seed of the windows and of a fresh memory's weights."""
    log_interval: int = 20
    """Steps between two lines."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU if there is one, when not given."""

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        require(bool(self.model), "model", self.model, "a segmenter's folder or hub id")
        require(bool(self.data), "data", self.data, 'clips, as in --data "scenes:split=clip_train,count=400,seed=1"')
        require(not self.output.exists(), "output", self.output, "a folder that does not exist yet")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "a number above 0")
        at_least(self, "frames", 2)
        for name in ("steps", "stride", "objects", "batch_size", "layers", "log_interval", "prompt_frames"):
            at_least(self, name, 1)
