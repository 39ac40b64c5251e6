"""Phrases in frames of a video: the language model's `[SEG]` states of each phrase, and their masks in a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deixis.data.refer.conversation import question_for, single_turn
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle, SamLevels, select_mask
from deixis.models.sa2va.language.phrases import Meant, seg_states


class Found(NamedTuple):
    """One phrase in one frame, before its mask is resized to the frame."""

    logits: Float[Tensor, "side side"] | None
    iou: float
    present: float
    answer: str = ""


NOTHING = Found(None, 0.0, 0.0)


class PhraseFinder:
    """The half of a segmenter that reads phrases. For its arguments see `Tracker`."""

    def __init__(
        self,
        bundle: Sa2vaBundle,
        device: torch.device,
        *,
        together: bool,
        threshold: float,
        generate: bool,
        batch_size: int,
        max_tiles: int,
    ) -> None:
        self.bundle, self.device = bundle, device
        self.together, self.threshold, self.generate = together, threshold, generate
        self.batch_size, self.max_tiles = batch_size, max_tiles
        self.tokens = ConversationTokens.of(bundle)

    def meant(self, texts: Sequence[str], pictures: Sequence[np.ndarray]) -> list[list[Meant]]:
        """The `[SEG]` states of each text, for each picture; the same for all of them if they are seen together."""
        model, bundle, together = self.bundle.model, self.bundle, self.together
        # Frames that are seen together are cut as in training, those seen alone as images. Sa2VA's own code shows Qwen
        # whole images in both cases.
        clip = together and not (bundle.blocks is not None and bundle.behaviour == "sa2va")
        cuts = [bundle.cutter.cut(picture, self.max_tiles, clip) for picture in pictures]
        # one [tiles, 3, tile, tile] for each picture
        tiles = [torch.from_numpy(cut.squares) for cut in cuts]
        grids = [() if cut.grid is None else (cut.grid,) for cut in cuts]
        # Of each picture [tiles, tile_tokens, channels].
        vision = [
            model.vision_features(bundle.normalise_tiles(one.to(self.device)), grid)
            for one, grid in zip(tiles, grids, strict=True)
        ]
        every = range(len(pictures))
        # One conversation per text where frames are seen together, else one per text and frame.
        rows = [(text, every if together else range(i, i + 1)) for i in ([0] if together else every) for text in texts]
        meant: list[Meant] = []
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            ids = [self._conversation(text, len(tiles[frames[0]]), len(frames)) for text, frames in part]
            counts = tuple(sum(len(tiles[frame]) for frame in frames) for _, frames in part)
            # [tiles of the rows, tile_tokens, channels]
            shown = torch.cat([vision[frame] for _, frames in part for frame in frames])
            placed = tuple(tuple(grid for frame in frames for grid in grids[frame]) for _, frames in part)
            padded = self.tokens.padded(ids, self.device)
            meant += seg_states(bundle, *padded, counts, shown, self.generate, grids=placed)
        if together:
            return [meant for _ in pictures]
        return [meant[i * len(texts) : (i + 1) * len(texts)] for i in every]

    def _conversation(self, text: str, tiles: int, frames: int) -> list[int]:
        if self.generate:
            return self.tokens.question(question_for(text, self.bundle.behaviour, self.together), tiles, frames=frames)
        return self.tokens([single_turn(text, self.bundle.behaviour, self.together)], tiles, frames=frames)[0]

    def found(self, meant: Sequence[Meant], levels: SamLevels) -> tuple[list[Found], list[Tensor]]:
        """Each phrase in one frame, and the state of its most probable `[SEG]`; several `[SEG]`s give one mask."""
        model = self.bundle.model
        hidden = torch.cat([one.hidden for one in meant])  # [SEGs of all phrases, hidden]
        frame = torch.zeros(len(hidden), dtype=torch.long, device=self.device)  # all in the one frame of `levels`
        masks = model.masks(hidden, levels, frame)
        outputs = {"pred_masks": masks.logits, "pred_ious": masks.ious, "object_scores": masks.object_scores}
        chosen = select_mask(outputs, self.bundle.behaviour)
        found, states, start = [], [], 0
        for one in meant:
            own = slice(start, start + len(one.hidden))
            start += len(one.hidden)
            if not len(one.hidden):
                found.append(Found(None, 0.0, 0.0, one.answer))
                states.append(hidden.new_zeros(hidden.shape[1]))
                continue
            present = chosen.present[own]
            there = present >= self.threshold
            there = there if bool(there.any()) else torch.ones_like(there)  # below the threshold as a whole
            logits = chosen.logits[own][there].amax(0)  # [side, side]: a union's logit is the highest of its masks'
            iou = float(chosen.ious[own][there].mean())
            found.append(Found(logits, iou, float(present.max()), one.answer))
            states.append(one.hidden[int(present.argmax())])
        return found, states
