"""The options of `deixis refer track`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.checks import require
from deixis.options.marks import AtLeast0, AtLeast1, NotBlank, Removed, Share
from deixis.options.types import flag_of
from deixis.options.used_models import UsedSegmenter


@dataclass(frozen=True)
class ReferTrackOptions(UsedSegmenter):
    """Follow what phrases mean through a video; write masks of every frame and the drawn video. With --data, follow the
    phrases of annotated clips instead, and measure J, F and J&F."""

    video: Path = Path()
    """A video file, or a folder of frames."""
    phrases: Annotated[tuple[str, ...], NotBlank()] = ()
    """What to follow, as in --phrases "the dog on the left" "the red car"."""
    data: str | None = None
    """Annotated clips to measure on, in place of --video and --phrases: SA-V with captions (Ref-SAV), MeViS,
    Ref-YouTube-VOS, DAVIS, or scenes:split=clip_seen,count=16,seed=77."""
    videos: Path | None = None
    """With --data: folder of the videos or frames, if the annotations do not name it."""
    max_clips: AtLeast1 | None = None
    """With --data: measure only the first N clips."""
    frame_by_frame: bool = False
    """With --data: also segment each labelled frame by itself, to measure what the memory adds."""
    sam_model: str | None = None
    """A SAM 2 whose memory follows what the segmenter finds, as in --sam-model facebook/sam2-hiera-large: for a
    segmenter without memory, or one whose mask decoder was fine-tuned on images."""
    REMOVED = MappingProxyType({"together": Removed(None, "frames are shown as the model's behaviour was trained")})

    output: Path = Path("tracks")
    """Folder for masks.json and video.mp4, or for metrics.json."""
    prompts: Literal["uniform", "first"] = "uniform"
    """Frames in which the phrases are looked for. uniform: frames sampled from the whole video, their masks given to
    the memory (as in Sa2VA-i). first: the first frames (as released)."""
    prompt_frames: AtLeast1 = 5
    """Number of these frames."""
    prompt_every: AtLeast0 = 0
    """Look again in every Nth frame for phrases that are not visible, to find objects that appear late; 0 disables."""
    generate: bool = False
    """Let the model write its answer instead of giving it the standard one."""
    threshold: Share = 0.5
    """Minimum probability that the object is there; below it the mask is left empty (deixis's behaviour only)."""
    draw: bool = True
    """Write video.mp4."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        if self.data is not None:
            require(bool(self.data), "data", self.data, "annotated clips, as in --data DAVIS#val")
            require(self.video == Path(), "video", self.video, "none with --data, which has its own videos")
            require(not self.phrases, "phrases", self.phrases, "none with --data, which has its own phrases")
        elif self.video == Path():
            raise OptionError("--video is required, as in --video clip.mp4; or --data with annotated clips")
        elif not self.phrases:
            raise OptionError('--phrases is required, as in --phrases "the red car"')
        else:
            for name in ("videos", "max_clips", "frame_by_frame"):
                if getattr(self, name):
                    raise OptionError(f"{flag_of(name)} needs --data with annotated clips")
        super().check()
