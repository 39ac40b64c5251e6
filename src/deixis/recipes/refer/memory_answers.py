"""What the segmenter itself says of the frames it is asked about, as the memory will be given it; kept as RLE."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pycocotools import mask as coco_mask
from torch import Tensor

from deixis.data.refer.clip_phrase_windows import PhraseWindow
from deixis.geometry.rle import bitmap_rle
from deixis.inference.refer.phrase_finder import PhraseFinder
from deixis.models.sa2va import Sa2vaBundle
from deixis.models.sa2va.bundle import PRESENCE_THRESHOLD
from deixis.models.sa2va.sam import encode_image
from deixis.records import Rle
from deixis.training.memory_phrases import Asked

_MOST_KEPT = 200_000
_TRUTH_SHARE = 0.25
"""Of the windows in which the true masks are given in place of the segmenter's."""
_TRIES = 20


class _Answer(NamedTuple):
    mask_rle: Rle
    meaning: Float[Tensor, " sam_channels"]


class Answers:
    """The segmenter's masks and `[SEG]` embeddings; each sentence is asked of a frame once.

    Args:
        max_tiles: in which the language model sees a frame.
    """

    def __init__(self, bundle: Sa2vaBundle, device: torch.device, max_tiles: int = 1, batch_size: int = 16) -> None:
        self.bundle, self.device = bundle, device
        together = bundle.behaviour == "sa2va"
        self.finder = PhraseFinder(bundle, device, together, PRESENCE_THRESHOLD, False, batch_size, max_tiles)
        self.kept: dict[tuple[int, int, str], _Answer] = {}

    def asked(self, draw: Callable[[int], PhraseWindow], rng: np.random.Generator) -> Asked:
        """A window with what is given in it. Phrases that are found in no asked frame are left out, as when following.

        Args:
            draw: a window of a seed.
        """
        for _ in range(_TRIES):
            window = draw(int(rng.integers(2**31)))
            masks, meanings = self._of(window)
            if rng.random() < _TRUTH_SHARE:
                masks = torch.from_numpy(window.masks[: len(window.asked)])
            rows = torch.where(masks.flatten(2).any(2).any(0))[0]
            if len(rows):
                return Asked(window, masks[:, rows], meanings[:, rows], rows)
        return Asked(window, masks, meanings, torch.arange(len(window.texts)))

    def _of(
        self, window: PhraseWindow
    ) -> tuple[Bool[Tensor, "asked phrases side side"], Float[Tensor, "asked phrases sam_channels"]]:
        masks, meanings = [], []
        for label, pixels in zip(window.asked, window.pixels, strict=False):
            missing = [text for text in window.texts if (window.clip, label, text) not in self.kept]
            if missing:
                if len(self.kept) > _MOST_KEPT:
                    self.kept.clear()
                self._ask(window, label, pixels, missing)
            answers = [self.kept[window.clip, label, text] for text in window.texts]
            found = np.stack([coco_mask.decode(answer.mask_rle) for answer in answers]).astype(bool)
            masks.append(torch.from_numpy(found))
            meanings.append(torch.stack([answer.meaning for answer in answers]))
        return torch.stack(masks), torch.stack(meanings)

    @torch.no_grad()
    def _ask(self, window: PhraseWindow, label: int, pixels: np.ndarray, texts: list[str]) -> None:
        side = self.bundle.sam_px
        square = torch.from_numpy(window.squares(side)[window.asked.index(label)][None]).to(self.device)
        sam = self.bundle.model.sam
        (meant,) = self.finder.meant(texts, [pixels])
        found, hidden = self.finder.found(meant, encode_image(sam, self.bundle.normalise_sam(square)))
        meanings = self.bundle.model.text_hidden_fcs(torch.stack(hidden)).float().cpu()
        for text, one, meaning in zip(texts, found, meanings, strict=True):
            mask = np.zeros((side, side), np.uint8)
            if one.logits is not None and one.present >= PRESENCE_THRESHOLD:
                large = F.interpolate(
                    one.logits[None, None].float(), (side, side), mode="bilinear", align_corners=False
                )
                mask = (large[0, 0] > 0).cpu().numpy().astype(np.uint8)
            self.kept[window.clip, label, text] = _Answer(bitmap_rle(mask), meaning)
