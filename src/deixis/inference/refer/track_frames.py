"""Prompted frames of a video: phrases are segmented in them, and the masks or embeddings prompt the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor

from deixis.data.pixels.tiles import squashed
from deixis.inference.refer.phrase_finder import Found, PhraseFinder
from deixis.models.sa2va import Sa2vaBundle, SamLevels
from deixis.models.sa2va.language.phrases import Meant
from deixis.models.sa2va.memory.attention import see_masks, see_prompts
from deixis.models.sa2va.memory.bank import MemoryBank, Seen, keeps_phrases
from deixis.models.sa2va.sam import encode_image
from deixis.models.sa2va.sam_protocol import Sam, SamWithMemory


@dataclass
class TrackedPhrase:
    """One phrase that is tracked.

    Attributes:
        given: by frame, the result of the language model, which replaces the memory's.
        answers: by frame, what the language model wrote.
        lost: not visible in the previous frame.
    """

    text: str
    bank: MemoryBank
    given: dict[int, Found] = field(default_factory=dict)
    answers: dict[int, str] = field(default_factory=dict)
    lost: bool = True


class FramePrompter:
    """Segments phrases in single frames and prompts their memories. For its arguments see `Tracker`."""

    def __init__(
        self,
        bundle: Sa2vaBundle,
        sam: SamWithMemory,
        finder: PhraseFinder,
        *,
        prompts: str,
        threshold: float,
        scored: bool,
    ) -> None:
        self.bundle, self.sam, self.finder = bundle, sam, finder
        self.prompts, self.threshold, self.scored = prompts, threshold, scored
        self.device = finder.device

    @torch.no_grad()
    def prompt(self, objects: Sequence[TrackedPhrase], frames: Sequence[tuple[int, np.ndarray]]) -> None:
        """Segment the phrases in some frames, by number, and prompt their memories."""
        if not objects or not frames:
            return
        meant = self.finder.meant([phrase.text for phrase in objects], [pixels for _, pixels in frames])
        if keeps_phrases(self.sam):
            self._prompt_with_evidence(objects, frames, meant)
        else:
            self._prompt_with_truth(objects, frames, meant)

    def levels(self, sam: Sam, pixels: UInt8[np.ndarray, "h w 3"]) -> SamLevels:
        """The features of a frame of the given SAM 2."""
        side = int(sam.prompt_encoder.input_image_size)
        square = torch.from_numpy(squashed(pixels, (side, side)).transpose(2, 0, 1).copy())  # [3, side, side]
        return encode_image(sam, self.bundle.normalise_sam(square[None].to(self.device)))

    def _prompt_with_truth(
        self, objects: Sequence[TrackedPhrase], frames: Sequence[tuple[int, np.ndarray]], meant: list[list[Meant]]
    ) -> None:
        """SAM 2's way: masks of prompted frames are final, and the memory takes them as true.

        Frames in which nothing is found do not prompt the memory, except for behaviour `sa2va`: Sa2VA's own code
        prompts it in every frame of the conversation, also with an empty mask. An answer without `[SEG]` never does.
        """
        for (index, pixels), of_objects in zip(frames, meant, strict=True):
            levels = self.levels(self.bundle.model.sam, pixels)
            found, hidden = self.finder.found(of_objects, levels)
            every = self.bundle.behaviour == "sa2va"
            there = [row for row, one in enumerate(found) if (one.logits is not None if every else self._there(one))]
            if not there:
                continue
            # another SAM 2 has features of its own
            own = levels if self.sam is self.bundle.model.sam else self.levels(self.sam, pixels)
            if self.prompts == "first":
                # [visible, sam_channels]
                embeddings = self.bundle.model.text_hidden_fcs(torch.stack([hidden[row] for row in there]))
                seen = see_prompts(self.sam, own, embeddings, suppress=self.scored)
            else:
                seen = see_masks(self.sam, own, self._masks([found[row] for row in there]))
            for row, place in enumerate(there):
                objects[place].bank.prompt(index, seen, row)
                # what is shown in this frame, in place of what the memory would find
                objects[place].given[index] = found[place]

    def _prompt_with_evidence(
        self, objects: Sequence[TrackedPhrase], frames: Sequence[tuple[int, np.ndarray]], meant: list[list[Meant]]
    ) -> None:
        """For a memory that keeps phrases: masks, also empty ones, are evidence, and the memory decides these frames.

        A phrase that is found in none of the frames is not tracked.
        """
        prompted: list[tuple[int, Seen, Tensor]] = []
        ever_found: set[int] = set()
        for (index, pixels), of_objects in zip(frames, meant, strict=True):
            levels = self.levels(self.sam, pixels)
            found, hidden = self.finder.found(of_objects, levels)
            # [phrases, hidden] -> [phrases, sam_channels]
            meanings = self.bundle.model.text_hidden_fcs(torch.stack(hidden))
            prompted.append((index, see_masks(self.sam, levels, self._masks(found), meanings), meanings))
            ever_found.update(row for row, one in enumerate(found) if self._there(one))
            for phrase, one in zip(objects, found, strict=True):
                phrase.answers[index] = one.answer
        # Only after all frames: whether a phrase is tracked depends on every one of them.
        for index, seen, meanings in prompted:
            for row in ever_found:
                objects[row].bank.prompt(index, seen, row, meanings[row])

    def _there(self, found: Found) -> bool:
        return found.logits is not None and found.present >= self.threshold and bool((found.logits > 0).any())

    def _masks(self, found: Sequence[Found]) -> Bool[Tensor, "objects image image"]:
        """Masks in the size of SAM 2's image, as its memory takes them; empty where the object is not visible."""
        side = int(self.sam.prompt_encoder.input_image_size)
        masks = torch.zeros(len(found), side, side, dtype=torch.bool, device=self.device)
        there = [row for row, one in enumerate(found) if self._there(one)]
        if there:
            # [found, side / 4, side / 4]: the mask decoder's resolution
            logits = torch.stack([logits for row in there if (logits := found[row].logits) is not None])
            # [found, 1, side, side]
            large = F.interpolate(logits[:, None].float(), (side, side), mode="bilinear", align_corners=False)
            masks[there] = large[:, 0] > 0  # rows of objects that are not visible stay empty
        return masks
