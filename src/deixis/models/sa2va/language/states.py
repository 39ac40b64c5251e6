"""What a segmenter's language model means by its `[SEG]`s, before any picture is asked for masks.

The masks of one `[SEG]` can then be decoded in many frames.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.models.sa2va.bundle import Sa2vaBundle
from deixis.models.sa2va.language.answers import generate
from deixis.refer_records import Grids


class Meant(NamedTuple):
    """The `[SEG]`s of one answer: their hidden states, and the words where the model wrote them itself."""

    hidden: Float[Tensor, "objects hidden"]
    answer: str


@torch.no_grad()
def seg_states(
    bundle: Sa2vaBundle,
    input_ids: Int[Tensor, "rows tokens"],
    attention_mask: Bool[Tensor, "rows tokens"],
    tiles_per_row: tuple[int, ...],
    vision: Float[Tensor, "tiles tile_tokens channels"],
    write: bool = False,
    *,
    grids: Grids = (),
) -> list[Meant]:
    """The `[SEG]`s of every row, from left to right.

    Args:
        input_ids: conversations, padded on the right: whole ones, or with `write` up to where the assistant begins.
        attention_mask: true on real tokens.
        tiles_per_row, vision, grids: as in `Sa2va.forward`; a row's tiles may be the frames of a clip.
        write: let the model write its answers.

    Raises:
        ModelError: image tokens and tiles do not agree.
    """
    model = bundle.model
    embeddings = model.embed(input_ids, model.project(vision), tiles_per_row)
    positions = model.positions(input_ids, tiles_per_row, grids)
    if write:
        written = generate(model, embeddings, attention_mask, bundle.end_token_id, positions=positions)
        texts = [bundle.tokenizer.decode(ids, skip_special_tokens=False) for ids in written.token_ids]
        return [Meant(written.seg_hidden[written.row_of_object == row], text) for row, text in enumerate(texts)]
    hidden = model.hidden_states(embeddings, attention_mask, positions)  # [rows, tokens, hidden]
    is_seg = (input_ids == model.seg_token_id) & attention_mask
    return [Meant(states[places], "") for states, places in zip(hidden, is_seg, strict=True)]
