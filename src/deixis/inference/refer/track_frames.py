"""Phrases looked for in some frames of a video, and what the memory is given of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor

from deixis.data.pixels.tiles import squashed
from deixis.inference.refer.phrase_finder import Found, PhraseFinder
from deixis.models.sa2va import Sa2vaBundle, SamLevels
from deixis.models.sa2va.language.states import Meant
from deixis.models.sa2va.memory.attention import see_masks, see_prompts
from deixis.models.sa2va.memory.bank import MemoryBank, Seen, keeps_phrases
from deixis.models.sa2va.sam import encode_image


@dataclass
class Followed:
    """One phrase and what is known of it.

    Attributes:
        given: by frame, what is shown there instead of what memory finds.
        answers: by frame, what the language model wrote.
        lost: not to be seen in the frame before.
    """

    text: str
    bank: MemoryBank
    given: dict[int, Found] = field(default_factory=dict)
    answers: dict[int, str] = field(default_factory=dict)
    lost: bool = True


class Looks:
    """Asks for phrases in single frames, and lets their memories know. For its arguments see `Tracker`."""

    def __init__(
        self, bundle: Sa2vaBundle, sam: Any, finder: PhraseFinder, prompts: str, threshold: float, scored: bool
    ) -> None:
        self.bundle, self.sam, self.finder = bundle, sam, finder
        self.prompts, self.threshold, self.scored = prompts, threshold, scored
        self.device = finder.device

    @torch.no_grad()
    def look(self, objects: Sequence[Followed], frames: Sequence[tuple[int, np.ndarray]]) -> None:
        """Ask for the objects in some frames."""
        if not objects or not frames:
            return
        meant = self.finder.meant([followed.text for followed in objects], [pixels for _, pixels in frames])
        if keeps_phrases(self.sam):
            self._weigh(objects, frames, meant)
        else:
            self._give(objects, frames, meant)

    def levels(self, sam: Any, pixels: UInt8[np.ndarray, "h w 3"]) -> SamLevels:
        """A frame as a SAM 2 sees it."""
        side = int(sam.prompt_encoder.input_image_size)
        square = torch.from_numpy(squashed(pixels, (side, side)).transpose(2, 0, 1).copy())
        return encode_image(sam, self.bundle.normalise_sam(square[None].to(self.device)))

    def _give(
        self, objects: Sequence[Followed], frames: Sequence[tuple[int, np.ndarray]], meant: list[list[Meant]]
    ) -> None:
        """SAM 2's way: what is found is the truth of its frame.

        Frames without the object tell the memory nothing, except for behaviour `sa2va`: Sa2VA's own code prompts the
        memory in every frame that it asks about, even if the mask is empty; only an answer without `[SEG]` cannot.
        """
        for (index, pixels), of_objects in zip(frames, meant, strict=True):
            levels = self.levels(self.bundle.model.sam, pixels)
            found, hidden = self.finder.found(of_objects, levels)
            every = self.bundle.behaviour == "sa2va"
            there = [row for row, one in enumerate(found) if (one.logits is not None if every else self._there(one))]
            if not there:
                continue
            own = levels if self.sam is self.bundle.model.sam else self.levels(self.sam, pixels)
            if self.prompts == "first":
                embeddings = self.bundle.model.text_hidden_fcs(torch.stack([hidden[row] for row in there]))
                seen = see_prompts(self.sam, own, embeddings, suppress=self.scored)
            else:
                seen = see_masks(self.sam, own, self._masks([found[row] for row in there]))
            for row, place in enumerate(there):
                objects[place].bank.prompt(index, seen, row)
                objects[place].given[index] = found[place]

    def _weigh(
        self, objects: Sequence[Followed], frames: Sequence[tuple[int, np.ndarray]], meant: list[list[Meant]]
    ) -> None:
        """For a memory that keeps phrases, what is found is evidence, like what is not; it judges these frames, too.

        A phrase that is found in none of them is not followed.
        """
        looks: list[tuple[int, Seen, Tensor]] = []
        ever: set[int] = set()
        for (index, pixels), of_objects in zip(frames, meant, strict=True):
            levels = self.levels(self.sam, pixels)
            found, hidden = self.finder.found(of_objects, levels)
            meanings = self.bundle.model.text_hidden_fcs(torch.stack(hidden))
            looks.append((index, see_masks(self.sam, levels, self._masks(found), meanings), meanings))
            ever.update(row for row, one in enumerate(found) if self._there(one))
            for followed, one in zip(objects, found, strict=True):
                followed.answers[index] = one.answer
        for index, seen, meanings in looks:
            for row in ever:
                objects[row].bank.prompt(index, seen, row, meanings[row])

    def _there(self, found: Found) -> bool:
        return found.logits is not None and found.present >= self.threshold and bool((found.logits > 0).any())

    def _masks(self, found: Sequence[Found]) -> Bool[Tensor, "objects image image"]:
        """Masks in the size that SAM 2's memory takes them; empty where the object is not there."""
        side = int(self.sam.prompt_encoder.input_image_size)
        masks = torch.zeros(len(found), side, side, dtype=torch.bool, device=self.device)
        there = [row for row, one in enumerate(found) if self._there(one)]
        if there:
            logits = torch.stack([logits for row in there if (logits := found[row].logits) is not None])
            large = F.interpolate(logits[:, None].float(), (side, side), mode="bilinear", align_corners=False)
            masks[there] = large[:, 0] > 0
        return masks
