"""A segmenter at work on videos: phrases and frames in, masks of every frame out, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from deixis.data.frames import ArrayFrames, open_frames
from deixis.data.tiles import squashed
from deixis.errors import DataError, OptionError, PromptError
from deixis.inference.modes import evaluating
from deixis.inference.phrase_finder import NOTHING, Found, PhraseFinder
from deixis.inference.segmenter import PRESENT_THRESHOLD, segmentation_of
from deixis.models.sa2va import Sa2vaBundle, SamLevels
from deixis.models.sa2va.memory import see_masks, see_next, see_prompts
from deixis.models.sa2va.memory_bank import MemoryBank, require_memory
from deixis.models.sa2va.sam import encode_image
from deixis.refer_records import Segmentation
from deixis.video_records import Frames

VideoInput = str | Path | np.ndarray | Frames | Iterable[np.ndarray]
PROMPT_FRAMES = ("uniform", "first")
"""uniform: frames from all over the video, whose masks are given to the memory as masks (Sa2VA-i, arXiv 2509.19082).
first: the first frames, whose embeddings prompt the memory (Sa2VA as released); one pass, also over endless streams."""


@dataclass
class _Followed:
    """One phrase and what is known of it."""

    text: str
    bank: MemoryBank
    given: dict[int, Found] = field(default_factory=dict)
    lost: bool = True


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
        most_tiles: in which the language model sees a frame that is an image of its own.
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
        threshold: float = PRESENT_THRESHOLD,
        generate: bool = False,
        batch_size: int = 8,
        most_tiles: int = 12,
        sam: Any = None,
    ) -> None:
        if prompts not in PROMPT_FRAMES:
            raise OptionError(f"prompts must be 'uniform' or 'first', got {prompts!r}")
        if min(prompt_frames, batch_size, most_tiles) < 1 or prompt_every < 0 or not 0 <= threshold <= 1:
            raise OptionError(
                "prompt_frames, batch_size and most_tiles must be at least 1, prompt_every at least 0, threshold "
                f"between 0 and 1; got {prompt_frames}, {batch_size}, {most_tiles}, {prompt_every}, {threshold}"
            )
        self.bundle, self.device = bundle, torch.device(device)
        self.prompts, self.prompt_frames, self.prompt_every = prompts, prompt_frames, prompt_every
        self.threshold = threshold
        together = bundle.behaviour == "sa2va" if together is None else together
        self.finder = PhraseFinder(bundle, self.device, together, threshold, generate, batch_size, most_tiles)
        self.sam = bundle.model.sam if sam is None else sam.eval()
        require_memory(self.sam)
        # Released models have not trained their object scores; an original SAM 2 and deixis's own have.
        self.scored = sam is not None or bundle.behaviour == "deixis"
        bundle.model.to(self.device)
        self.sam.to(self.device)

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
        objects = [_Followed(phrase, MemoryBank(self.sam, most)) for phrase in phrases]
        asked, stream = self._sampled(frames)
        size_hw: tuple[int, int] | None = None
        with evaluating(self.bundle.model):
            self._look(objects, asked)
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
    def _step(self, objects: Sequence[_Followed], index: int, pixels: np.ndarray) -> list[Segmentation]:
        """One frame: look again for what is lost, follow what is known."""
        if self.prompt_every and index and index % self.prompt_every == 0:
            self._look([followed for followed in objects if followed.lost], [(index, pixels)])
        known = [followed for followed in objects if followed.bank.prompted and index not in followed.given]
        if known:
            levels = self._levels(self.sam, pixels)
            seen = see_next(self.sam, levels, [followed.bank for followed in known], index, suppress=self.scored)
            present = seen.object_scores.sigmoid() if self.scored else torch.ones_like(seen.object_scores)
            scores = zip(seen.ious.tolist(), present.tolist(), strict=True)
            for row, (followed, (iou, there)) in enumerate(zip(known, scores, strict=True)):
                followed.bank.add(index, seen, row)
                followed.given[index] = Found(seen.logits[row], iou, there)
        records = []
        for followed in objects:
            found = followed.given.pop(index, NOTHING)
            shown = None if found.present < self.threshold else found.logits
            followed.lost = shown is None or not bool((shown > 0).any())
            records.append(
                segmentation_of(shown, pixels.shape[:2], followed.text, found.iou, found.present, found.answer, index)
            )
        return records

    @torch.no_grad()
    def _look(self, objects: Sequence[_Followed], frames: Sequence[tuple[int, np.ndarray]]) -> None:
        """Ask for the objects in some frames, and let the memory know of those that are there."""
        if not objects or not frames:
            return
        meant = self.finder.meant([followed.text for followed in objects], [pixels for _, pixels in frames])
        for (index, pixels), of_objects in zip(frames, meant, strict=True):
            levels = self._levels(self.bundle.model.sam, pixels)
            found, hidden = self.finder.found(of_objects, levels)
            there = [
                row
                for row, one in enumerate(found)
                if one.logits is not None and one.present >= self.threshold and bool((one.logits > 0).any())
            ]
            if not there:
                continue
            own = levels if self.sam is self.bundle.model.sam else self._levels(self.sam, pixels)
            if self.prompts == "first":
                embeddings = self.bundle.model.text_hidden_fcs(torch.stack([hidden[row] for row in there]))
                seen = see_prompts(self.sam, own, embeddings, suppress=self.scored)
            else:
                seen = see_masks(self.sam, own, self._squares([found[row] for row in there]))
            for row, place in enumerate(there):
                objects[place].bank.prompt(index, seen, row)
                objects[place].given[index] = found[place]

    def _squares(self, found: Sequence[Found]) -> Tensor:
        """Masks in the size that SAM 2's memory takes them."""
        side = int(self.sam.prompt_encoder.input_image_size)
        logits = torch.stack([one.logits for one in found if one.logits is not None])
        large = F.interpolate(logits[:, None].float(), (side, side), mode="bilinear", align_corners=False)
        return large[:, 0] > 0

    def _levels(self, sam: Any, pixels: UInt8[np.ndarray, "h w 3"]) -> SamLevels:
        side = int(sam.prompt_encoder.input_image_size)
        square = torch.from_numpy(squashed(pixels, (side, side)).transpose(2, 0, 1).copy())
        return encode_image(sam, self.bundle.normalise_sam(square[None].to(self.device)))


def _opened(video: VideoInput) -> Frames | Iterable[np.ndarray]:
    if isinstance(video, str | Path):
        return open_frames(video)
    if isinstance(video, list | tuple):
        video = np.stack(video)
    return ArrayFrames(video) if isinstance(video, np.ndarray) else video
