"""What a memory that keeps phrases learns: to make, of what the segmenter says of some frames, the truth of others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.data.refer.clip_phrase_windows import PhraseWindow
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import Sa2vaBundle
from deixis.models.sa2va.memory.unroll import Given, unroll_phrases
from deixis.models.sa2va.sam import encode_image
from deixis.training.memory import followed_losses


class Asked(NamedTuple):
    """A window and what is given in it.

    Attributes:
        masks: in the asked frames, empty where a phrase was said to mean nothing.
        meanings: the embeddings of the phrases there.
        rows: the window's phrases that these are about.
    """

    window: PhraseWindow
    masks: Bool[Tensor, "asked rows side side"]
    meanings: Float[Tensor, "asked rows sam_channels"]
    rows: Int[Tensor, " rows"]

    @property
    def source(self) -> str:
        """For messages."""
        return self.window.source


def phrase_losses(bundle: Sa2vaBundle, criterion: ReferCriterion, asked: Asked) -> dict[str, Tensor]:
    """The criterion's losses over the frames of the run, those that were asked about included."""
    sam, window = bundle.model.sam, asked.window
    device, split = sam.no_memory_embedding.device, len(window.asked)
    with torch.no_grad():
        pixels = torch.from_numpy(window.squares(bundle.sam_px)).to(device)
        levels = encode_image(sam, bundle.normalise_sam(pixels))
    frames = list(zip(*(torch.split(level, 1) for level in levels), strict=True))
    given = {
        number: Given(frames[i], asked.masks[i].to(device), asked.meanings[i].to(device))
        for i, number in enumerate(window.numbers[:split])
    }
    found = unroll_phrases(sam, given, dict(zip(window.numbers[split:], frames[split:], strict=True)))
    truth = torch.from_numpy(window.masks[split:]).to(device)[:, asked.rows.to(device)]
    return followed_losses(criterion, found, truth[found.frame, found.object_index])
