"""Tracking by phrases: phrases and the frames of a video in, masks of every frame out, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from deixis.data.pixels.frames import ArrayFrames, open_frames
from deixis.errors import DataError, OptionError, PromptError
from deixis.inference.eval_mode import evaluating
from deixis.inference.refer.phrase_finder import NOTHING, Found, PhraseFinder
from deixis.inference.refer.pictures import middle_px, segmentation_of
from deixis.inference.refer.track_frames import FramePrompter, TrackedPhrase
from deixis.models.sa2va import Sa2vaBundle
from deixis.models.sa2va.bundle import PRESENCE_THRESHOLD
from deixis.models.sa2va.memory.attention import see_next
from deixis.models.sa2va.memory.bank import MemoryBank, require_memory
from deixis.models.sa2va.sam_protocol import SamWithMemory
from deixis.refer_records import Segmentation
from deixis.video_records import Frames

VideoInput = str | Path | np.ndarray | Frames | Iterable[np.ndarray]
PROMPT_FRAMES = ("uniform", "first")
"""uniform: frames spread over the video, whose masks prompt the memory (Sa2VA-i, arXiv 2509.19082).
first: the first frames, whose `[SEG]` embeddings prompt the memory (Sa2VA as released); one pass, also over endless
streams."""


class Tracker:
    """A segmenter whose SAM 2 has a memory, on a device, ready to track phrases.

    Args:
        prompts: in which frames the language model is asked for the phrases, one of `PROMPT_FRAMES`; all other frames
            are segmented by memory.
        prompt_frames: the number of such frames.
        together: the language model sees these frames in one conversation, one tile each, and gives one `[SEG]` for all
            of them, as released models were trained; otherwise each frame is an image of its own. By default as the
            behaviour was trained: together for `sa2va`, separate for `deixis`.
        prompt_every: every N frames, ask again for phrases that were not visible in the previous frame; 0 disables.
            Finds objects that appear late or come back changed.
        threshold: a mask is left empty where the probability that the object is visible is below this. Only models of
            behaviour `deixis` predict that probability.
        generate: let the model write its answer instead of giving it the standard one.
        batch_size: conversations per forward pass.
        max_tiles: the language model sees a separate frame in at most this many tiles.
        sam: another `Sam2VideoModel` that does the tracking: one with original weights where the segmenter's was
            fine-tuned on images (the Sa2VA-i way), or where the segmenter's has no memory.

    Raises:
        OptionError: an invalid value.
        ModelError: there is no memory.
    """

    def __init__(
        self,
        bundle: Sa2vaBundle,
        device: str | torch.device = "cpu",
        prompts: str = "uniform",
        *,
        prompt_frames: int = 5,
        together: bool | None = None,
        prompt_every: int = 0,
        threshold: float = PRESENCE_THRESHOLD,
        generate: bool = False,
        batch_size: int = 8,
        max_tiles: int = 12,
        sam: SamWithMemory | None = None,
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
        self.finder = PhraseFinder(
            bundle,
            self.device,
            together=together,
            threshold=threshold,
            generate=generate,
            batch_size=batch_size,
            max_tiles=max_tiles,
        )
        self.sam = require_memory(bundle.model.sam if sam is None else sam.eval())
        # Object scores of released models are not trained; those of an original SAM 2 and of behaviour deixis are.
        self.scored = sam is not None or bundle.behaviour == "deixis"
        bundle.model.to(self.device)
        self.sam.to(self.device)
        self.prompter = FramePrompter(
            bundle, self.sam, self.finder, prompts=prompts, threshold=threshold, scored=self.scored
        )

    def track(self, video: VideoInput, phrases: Sequence[str]) -> Iterator[list[Segmentation]]:
        """The mask of each phrase, frame by frame, as soon as a frame has been processed.

        Memory does not grow with the video. With `prompts="uniform"` the `prompt_frames` sampled frames are read first,
        and then the whole video; with "first" the video is read once.

        Args:
            video: a video file, a folder of images, frames as an array of shape (frames, height, width, 3), or any
                iterable of uint8 RGB arrays of one size (endless ones, too, with `prompts="first"`).

        Returns:
            For each frame one record per phrase, in order; `image_id` is the frame's number. A mask is empty where the
            object is not visible.

        Raises:
            DataError: a frame is missing, cannot be decoded or differs in size.
            PromptError: `phrases` is not a list, or a phrase is blank.
            OptionError: `prompts="uniform"` for a video of unknown length.
        """
        return (records for _, records in self.follow(video, phrases))

    def follow(
        self, video: VideoInput, phrases: Sequence[str]
    ) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], list[Segmentation]]]:
        """As `track`, each frame's records with its pixels."""
        if isinstance(phrases, str):
            raise PromptError(f"phrases must be a list, got the string {phrases!r}; write [{phrases!r}]")
        if not phrases or any(not phrase.strip() for phrase in phrases):
            raise PromptError(f"phrases are required and must not be blank, got {list(phrases)}")
        frames = _opened(video)
        if self.prompts == "uniform" and not isinstance(frames, Frames):
            raise OptionError("the video's length is not known, so its frames cannot be sampled; use prompts='first'")
        return self._followed(frames, phrases)

    def _followed(
        self, frames: Frames | Iterable[np.ndarray], phrases: Sequence[str]
    ) -> Iterator[tuple[np.ndarray, list[Segmentation]]]:
        most = max(self.prompt_frames, 2)  # with one place only, each new prompt would push out the first
        objects = [TrackedPhrase(phrase, MemoryBank(self.sam, most)) for phrase in phrases]
        asked, stream = self._sampled(frames)
        size_hw: tuple[int, int] | None = None
        with evaluating(self.bundle.model):
            self.prompter.prompt(objects, asked)
            del asked  # the sampled frames; pixels that the whole video would keep in memory
            for index, pixels in enumerate(stream):
                size_hw = pixels.shape[:2] if size_hw is None else size_hw
                if pixels.shape[:2] != size_hw:
                    raise DataError(
                        f"frame {index} is {pixels.shape[:2]}, the first one {size_hw} (height, width); "
                        "all frames of a video must have the same size"
                    )
                yield pixels, self._step(objects, index, pixels)

    def _sampled(
        self, frames: Frames | Iterable[np.ndarray]
    ) -> tuple[list[tuple[int, np.ndarray]], Iterator[np.ndarray]]:
        """The prompted frames, by number, and all frames in order."""
        if self.prompts == "uniform" and isinstance(frames, Frames):
            # first and last frame among them
            spread = np.linspace(0, len(frames) - 1, min(self.prompt_frames, len(frames))).round()
            numbers = sorted({int(number) for number in spread})
            return list(zip(numbers, frames.read(numbers), strict=True)), iter(frames)
        stream = iter(frames)
        # read once only: a stream has no beginning to return to
        first = list(islice(stream, self.prompt_frames))
        return list(enumerate(first)), chain(first, stream)

    @torch.no_grad()
    def _step(self, objects: Sequence[TrackedPhrase], index: int, pixels: np.ndarray) -> list[Segmentation]:
        """One frame: prompt again for lost phrases, track the others by memory."""
        if self.prompt_every and index and index % self.prompt_every == 0:
            # a phrase that is still followed is not asked for again: its memory knows more than one frame shows
            self.prompter.prompt([phrase for phrase in objects if phrase.lost], [(index, pixels)])
        known = [phrase for phrase in objects if phrase.bank.prompted and index not in phrase.given]
        if known:
            levels = self.prompter.levels(self.sam, pixels)
            # [phrases, side, side] logits: SAM 2 looks once at the frame for all phrases that it remembers
            seen = see_next(self.sam, levels, [phrase.bank for phrase in known], index, suppress=self.scored)
            present = seen.object_scores.sigmoid() if self.scored else torch.ones_like(seen.object_scores)
            scores = zip(seen.ious.tolist(), present.tolist(), strict=True)
            for row, (phrase, (iou, there)) in enumerate(zip(known, scores, strict=True)):
                # what was found is remembered even where it is absent: the memory then holds that, too
                phrase.bank.add(index, seen, row)
                phrase.given[index] = Found(seen.logits[row], iou, there)
        records = []
        for phrase in objects:
            found = phrase.given.pop(index, NOTHING)  # taken out: nothing of a frame is kept
            answer = phrase.answers.pop(index, found.answer)
            shown = None if found.present < self.threshold else found.logits
            phrase.lost = shown is None or not bool((shown > 0).any())
            record = segmentation_of(
                shown,
                pixels.shape[:2],
                phrase.text,
                iou=found.iou,
                present=found.present,
                answer=answer,
                image_id=index,
                via_px=middle_px(self.bundle),
            )
            records.append(record)
        return records


def _opened(video: VideoInput) -> Frames | Iterable[np.ndarray]:
    if isinstance(video, str | Path):
        return open_frames(video)
    if isinstance(video, list | tuple):
        video = np.stack(video)
    return ArrayFrames(video) if isinstance(video, np.ndarray) else video
