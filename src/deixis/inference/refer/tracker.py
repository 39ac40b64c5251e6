"""A segmenter at work on videos: phrases and frames in, masks of every frame out, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from deixis.data.pixels.frames import ArrayFrames, open_frames
from deixis.errors import DataError, OptionError, PromptError
from deixis.inference.eval_mode import evaluating
from deixis.inference.refer.phrase_finder import NOTHING, Found, PhraseFinder
from deixis.inference.refer.segmenter import middle_px, segmentation_of
from deixis.inference.refer.track_frames import Followed, Looks
from deixis.models.sa2va import Sa2vaBundle
from deixis.models.sa2va.bundle import PRESENCE_THRESHOLD
from deixis.models.sa2va.memory.attention import see_next
from deixis.models.sa2va.memory.bank import MemoryBank, require_memory
from deixis.refer_records import Segmentation
from deixis.video_records import Frames

VideoInput = str | Path | np.ndarray | Frames | Iterable[np.ndarray]
PROMPT_FRAMES = ("uniform", "first")
"""uniform: frames from all over the video, whose masks are given to the memory as masks (Sa2VA-i, arXiv 2509.19082).
first: the first frames, whose embeddings prompt the memory (Sa2VA as released); one pass, also over endless streams."""


class Tracker:
    """A segmenter whose SAM 2 has a memory, on a device, ready to follow what phrases mean.

    Args:
        prompts: which frames the phrases are looked for in, one of `PROMPT_FRAMES`; in all others they are found by
            memory.
        prompt_frames: how many of them.
        together: the language model sees these frames in one conversation, one tile each, and means one thing in all
            of them, as released models were trained to; otherwise each is an image of its own. By default as the
            behaviour was trained: together for `sa2va`, apart for `deixis`.
        prompt_every: look again in every so many frames for phrases that were not to be seen in the frame before; 0
            for never. Finds objects that appear late or come back changed.
        threshold: least probability that the object is there, for its mask not to be left empty; only a model that
            was trained the `deixis` way has learnt to say so.
        generate: let the model write its answer instead of giving it the standard one.
        batch_size: conversations in one pass.
        max_tiles: in which the language model sees a frame that is an image of its own.
        sam: another `Sam2VideoModel` that follows what the segmenter finds: one with original weights where the
            segmenter's was fine-tuned on images (the Sa2VA-i way), or where it has no memory.

    Raises:
        OptionError: a value that cannot be meant.
        ModelError: there is no memory.
    """

    def __init__(
        self,
        bundle: Sa2vaBundle,
        device: str | torch.device = "cpu",
        prompts: str = "uniform",
        prompt_frames: int = 5,
        together: bool | None = None,
        prompt_every: int = 0,
        threshold: float = PRESENCE_THRESHOLD,
        generate: bool = False,
        batch_size: int = 8,
        max_tiles: int = 12,
        sam: Any = None,
    ) -> None:
        if prompts not in PROMPT_FRAMES:
            raise OptionError(f"prompts must be 'uniform' or 'first', got {prompts!r}")
        if min(prompt_frames, batch_size, max_tiles) < 1 or prompt_every < 0 or not 0 <= threshold <= 1:
            raise OptionError(
                "prompt_frames, batch_size and max_tiles must be at least 1, prompt_every at least 0, threshold "
                f"between 0 and 1; got {prompt_frames}, {batch_size}, {max_tiles}, {prompt_every}, {threshold}"
            )
        self.bundle, self.device = bundle, torch.device(device)
        self.prompts, self.prompt_frames, self.prompt_every = prompts, prompt_frames, prompt_every
        self.threshold = threshold
        together = bundle.behaviour == "sa2va" if together is None else together
        self.finder = PhraseFinder(bundle, self.device, together, threshold, generate, batch_size, max_tiles)
        self.sam = bundle.model.sam if sam is None else sam.eval()
        require_memory(self.sam)
        # Released models have not trained their object scores; an original SAM 2 and deixis's own have.
        self.scored = sam is not None or bundle.behaviour == "deixis"
        bundle.model.to(self.device)
        self.sam.to(self.device)
        self.looks = Looks(self.bundle, self.sam, self.finder, prompts, threshold, self.scored)

    def track(self, video: VideoInput, phrases: Sequence[str]) -> Iterator[list[Segmentation]]:
        """What each phrase means in each frame, frame by frame, as soon as a frame has been seen.

        Memory does not grow with the video. With `prompts="uniform"` the video is read twice, `prompt_frames` of it
        the first time; with "first" once.

        Args:
            video: a video file, a folder of images, frames as an array of shape (frames, height, width, 3), or any
                iterable of uint8 RGB arrays of one size (endless ones, too, with `prompts="first"`).

        Returns:
            For each frame one record a phrase, in order; `image_id` is the frame's number. A mask is empty where the
            object is not to be seen.

        Raises:
            DataError: a frame that is missing, cannot be decoded or is of another size.
            PromptError: the phrases are no list, or one is blank.
            OptionError: uniform prompts for a video of unknown length.
        """
        return (records for _, records in self.follow(video, phrases))

    def follow(
        self, video: VideoInput, phrases: Sequence[str]
    ) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], list[Segmentation]]]:
        """As `track`, each frame's records with its pixels."""
        if isinstance(phrases, str):
            raise PromptError(f"phrases must be a list, got the string {phrases!r}; write [{phrases!r}]")
        if not phrases or any(not phrase.strip() for phrase in phrases):
            raise PromptError(f"phrases must be given and not blank, got {list(phrases)}")
        frames = _opened(video)
        if self.prompts == "uniform" and not isinstance(frames, Frames):
            raise OptionError("the video's length is not known, so its frames cannot be sampled; use prompts='first'")
        return self._followed(frames, phrases)

    def _followed(
        self, frames: Frames | Iterable[np.ndarray], phrases: Sequence[str]
    ) -> Iterator[tuple[np.ndarray, list[Segmentation]]]:
        most = max(self.prompt_frames, 2)
        objects = [Followed(phrase, MemoryBank(self.sam, most)) for phrase in phrases]
        asked, stream = self._sampled(frames)
        size_hw: tuple[int, int] | None = None
        with evaluating(self.bundle.model):
            self.looks.look(objects, asked)
            del asked
            for index, pixels in enumerate(stream):
                size_hw = pixels.shape[:2] if size_hw is None else size_hw
                if pixels.shape[:2] != size_hw:
                    raise DataError(
                        f"frame {index} is {pixels.shape[:2]}, the first one {size_hw} (height, width); "
                        "a video's frames must be of one size"
                    )
                yield pixels, self._step(objects, index, pixels)

    def _sampled(
        self, frames: Frames | Iterable[np.ndarray]
    ) -> tuple[list[tuple[int, np.ndarray]], Iterator[np.ndarray]]:
        """The frames to look in, by number, and all frames in order."""
        if self.prompts == "uniform" and isinstance(frames, Frames):
            spread = np.linspace(0, len(frames) - 1, min(self.prompt_frames, len(frames))).round()
            numbers = sorted({int(number) for number in spread})
            return list(zip(numbers, frames.read(numbers), strict=True)), iter(frames)
        stream = iter(frames)
        first = list(islice(stream, self.prompt_frames))
        return list(enumerate(first)), chain(first, stream)

    @torch.no_grad()
    def _step(self, objects: Sequence[Followed], index: int, pixels: np.ndarray) -> list[Segmentation]:
        """One frame: look again for what is lost, follow what is known."""
        if self.prompt_every and index and index % self.prompt_every == 0:
            self.looks.look([followed for followed in objects if followed.lost], [(index, pixels)])
        known = [followed for followed in objects if followed.bank.prompted and index not in followed.given]
        if known:
            levels = self.looks.levels(self.sam, pixels)
            seen = see_next(self.sam, levels, [followed.bank for followed in known], index, suppress=self.scored)
            present = seen.object_scores.sigmoid() if self.scored else torch.ones_like(seen.object_scores)
            scores = zip(seen.ious.tolist(), present.tolist(), strict=True)
            for row, (followed, (iou, there)) in enumerate(zip(known, scores, strict=True)):
                followed.bank.add(index, seen, row)
                followed.given[index] = Found(seen.logits[row], iou, there)
        records = []
        for followed in objects:
            found = followed.given.pop(index, NOTHING)
            answer = followed.answers.pop(index, found.answer)
            shown = None if found.present < self.threshold else found.logits
            followed.lost = shown is None or not bool((shown > 0).any())
            size_hw, via = pixels.shape[:2], middle_px(self.bundle)
            records.append(segmentation_of(shown, size_hw, followed.text, found.iou, found.present, answer, index, via))
        return records


def _opened(video: VideoInput) -> Frames | Iterable[np.ndarray]:
    if isinstance(video, str | Path):
        return open_frames(video)
    if isinstance(video, list | tuple):
        video = np.stack(video)
    return ArrayFrames(video) if isinstance(video, np.ndarray) else video
