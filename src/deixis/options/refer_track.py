"""Options of `deixis refer track`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deixis.options.checks import A_SEGMENTER, at_least, choose_model, require, require_model
from deixis.options.types import Options


@dataclass(frozen=True)
class ReferTrackOptions(Options):
    """Follow what phrases mean through a video; write masks of every frame and the drawn video. With --data, follow the
    phrases of annotated clips instead, and measure J, F and J&F."""

    video: Path = Path()
    """A video file, or a folder of frames."""
    data: str | None = None
    """Annotated clips to measure on, in place of --video and --phrases: SA-V with captions (Ref-SAV), MeViS,
    Ref-YouTube-VOS, DAVIS, or scenes:split=clip_seen,count=16,seed=77."""
    videos: Path | None = None
    """With --data, the folder of videos or frames where it is not with the annotations."""
    max_clips: int | None = None
    """With --data, measure only the first so many clips."""
    frame_by_frame: bool = False
    """With --data, also segment the phrases in every labelled frame by itself, to see what the memory brings."""
    phrases: tuple[str, ...] = ()
    """What to follow, as in --phrases "the dog on the left" "the red car"."""
    model: str = ""
    """"builtin", or a segmenter's folder or hub id whose SAM 2 has a memory, as released Sa2VA has."""
    sam_model: str | None = None
    """A SAM 2 with its memory that follows what the segmenter finds, as in --sam-model facebook/sam2-hiera-large: for
    a segmenter without memory, or one whose mask decoder was fine-tuned on images."""
    output: Path = Path("tracks")
    """Folder for masks.json and video.mp4, or for metrics.json."""
    prompts: Literal["uniform", "first"] = "uniform"
    """Frames in which the phrases are looked for: sampled over the whole video, their masks given to the memory (the
    Sa2VA-i way), or the first ones (as released)."""
    prompt_frames: int = 5
    """How many of them."""
    together: bool | None = None
    """Show the language model these frames in one conversation; by default as the model's behaviour was trained."""
    prompt_every: int = 0
    """Look again in every so many frames for phrases that are not to be seen: late objects; 0 for never."""
    generate: bool = False
    """Let the model write its answer instead of giving it the standard one."""
    threshold: float = 0.5
    """Least probability that the object is there; below it the mask is left empty (deixis's behaviour only)."""
    draw: bool = True
    """Write video.mp4."""
    batch_size: int = 8
    """Conversations a batch."""
    max_tiles: int = 12
    """Most tiles in which the vision-language model sees a frame that is an image of its own."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU if there is one, when not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, self.data)

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        if self.data is not None:
            require(bool(self.data), "data", self.data, "annotated clips, as in --data DAVIS#val")
            require(self.video == Path(), "video", self.video, "none beside --data, which has its own videos")
            require(not self.phrases, "phrases", self.phrases, "none beside --data, which has its own phrases")
        else:
            wanted = "a video file or folder of frames, as in --video clip.mp4, or annotated clips as --data"
            require(self.video != Path(), "video", self.video, wanted)
            require(bool(self.phrases), "phrases", self.phrases, 'what to follow, as in --phrases "the red car"')
            for name in ("videos", "max_clips", "frame_by_frame"):
                require(not getattr(self, name), name, getattr(self, name), "annotated clips with it, as --data")
        require(all(p.strip() for p in self.phrases), "phrases", self.phrases, "phrases that are not blank")
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "a number from 0 to 1")
        for name in ("prompt_frames", "batch_size", "max_tiles", "max_clips"):
            at_least(self, name, 1)
        at_least(self, "prompt_every", 0)
        require_model(self.model, A_SEGMENTER)
