"""Answers in the model's own words, and the masks of every `[SEG]` among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from deixis.batch_records import Grids
from deixis.models.sa2va.bundle import Behaviour, Sa2vaBundle
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.sam import Masks, SamLevels

MAX_ANSWER_TOKENS = 64
Choose = Callable[[Float[Tensor, "rows vocabulary"]], Int[Tensor, " rows"]]


class Generated(NamedTuple):
    """What was written after each row, and the hidden states at its `[SEG]` tokens.

    Attributes:
        token_ids: one list per row, without the end.
        log_probs: of each token written, and of the end where the row came to it.
        seg_hidden: row by row, from left to right.
        row_of_object: the row of each.
    """

    token_ids: list[list[int]]
    log_probs: list[list[float]]
    seg_hidden: Float[Tensor, "objects hidden"]
    row_of_object: Int[Tensor, " objects"]


class Answer(NamedTuple):
    """The answer to one conversation. `masks` has one entry a `[SEG]` of the text, in order; perhaps none."""

    text: str
    token_ids: list[int]
    masks: Masks


class Chosen(NamedTuple):
    """One mask per object.

    Attributes:
        logits: of the mask.
        ious: the IoU that the model expects, in [0, 1].
        present: probability that there is anything, 1 where the model has not learnt to tell.
    """

    logits: Float[Tensor, "objects side side"]
    ious: Float[Tensor, " objects"]
    present: Float[Tensor, " objects"]


@torch.no_grad()
def generate(
    model: Sa2va,
    embeddings: Float[Tensor, "rows tokens hidden"],
    attention_mask: Bool[Tensor, "rows tokens"],
    end_token_id: int,
    max_new_tokens: int = 64,
    choose: Choose | None = None,
    positions: Int[Tensor, "3 rows tokens"] | None = None,
    forbidden: Sequence[int] = (),
    min_tokens: int = 0,
    shared_tokens: int = 0,
) -> Generated:
    """Write on after each row, all rows at once, with a key-value cache.

    Args:
        embeddings: prompts, padded on the right.
        attention_mask: true on real tokens.
        end_token_id: a row ends with it.
        max_new_tokens: it also ends after this many.
        choose: logits to the next token of each row; the likeliest by default.
        positions: what `Sa2va.positions` says of the prompts.
        forbidden: tokens that are never written.
        min_tokens: no row ends before that many tokens.
        shared_tokens: this many tokens at the start are the same in every row, and are read once. No row is as short.
    """
    rows, cache = len(embeddings), DynamicCache(config=model.vlm.config.get_text_config())
    hidden = _read_prompts(
        model, embeddings, attention_mask, positions=positions, cache=cache, shared_tokens=shared_tokens
    )
    # The first new token's position: one more than the highest so far, in time, row or column.
    start = attention_mask.sum(1)  # [rows]
    if positions is not None:
        start = positions.amax(0).masked_fill(~attention_mask, 0).amax(1) + 1
    running = torch.ones(rows, dtype=torch.bool, device=embeddings.device)
    written: list[list[int]] = [[] for _ in range(rows)]
    log_probs: list[list[float]] = [[] for _ in range(rows)]
    found: list[tuple[int, Tensor]] = []
    for step in range(max_new_tokens):
        logits = model.token_logits(hidden)  # [rows, vocabulary]
        never = [*forbidden, end_token_id] if step < min_tokens else list(forbidden)
        logits[:, never] = float("-inf")
        token = logits.argmax(-1) if choose is None else choose(logits)
        said = logits.float().log_softmax(-1).gather(1, token[:, None])[:, 0].tolist()  # [rows]
        for row in running.nonzero()[:, 0].tolist():
            log_probs[row].append(said[row])
        # Rows that have ended go on in the batch, and what they write is dropped: masked, and not kept below.
        running = running & (token != end_token_id)
        if not running.any():
            break
        for row, token_id, writes in zip(range(rows), token.tolist(), running.tolist(), strict=True):
            written[row] += [token_id] if writes else []
        # The padding between a prompt and its answer stays masked; positions go on where the prompt ended.
        attention_mask = torch.cat([attention_mask, running[:, None]], dim=1)
        said_next = model.embed_tokens(token[:, None])
        # One position for time, row and column alike: text counts on in all three. [rows, 1, hidden] to [rows, hidden]
        hidden = model.read_on(said_next, attention_mask, (start + step)[:, None], cache)[:, 0]
        is_seg = (running & (token == model.seg_token_id)).nonzero()[:, 0].tolist()
        found += [(row, hidden[row]) for row in is_seg]
    return Generated(written, log_probs, *_by_row(found, hidden))


def _by_row(
    found: list[tuple[int, Tensor]], like: Float[Tensor, "rows hidden"]
) -> tuple[Float[Tensor, "objects hidden"], Int[Tensor, " objects"]]:
    """States of `[SEG]`, and the row of each, row by row; of no states, empty tensors like the others."""
    found = sorted(found, key=lambda item: item[0])  # stable: within a row the order of writing stays
    rows = torch.tensor([row for row, _ in found], device=like.device, dtype=torch.long)
    return torch.stack([state for _, state in found]) if found else like[:0], rows


def _read_prompts(
    model: Sa2va,
    embeddings: Float[Tensor, "rows tokens wide"],
    attention_mask: Bool[Tensor, "rows tokens"],
    *,
    positions: Int[Tensor, "3 rows tokens"] | None,
    cache: DynamicCache,
    shared_tokens: int,
) -> Float[Tensor, "rows hidden"]:
    """The state at the end of each prompt, from which its first token follows; keys and values go into the cache."""
    rows, lengths = len(embeddings), attention_mask.sum(1)
    if shared_tokens:
        # The first row stands for all: its keys and values, [1, heads, shared, dim] per layer, are copied to the rows.
        shared = None if positions is None else positions[:, :1, :shared_tokens]
        model.read_on(embeddings[:1, :shared_tokens], attention_mask[:1, :shared_tokens], shared, cache)
        cache.batch_select_indices(torch.zeros(rows, dtype=torch.long, device=embeddings.device))
    own = None if positions is None else positions[:, :, shared_tokens:]
    states = model.read_on(embeddings[:, shared_tokens:], attention_mask, own, cache)  # [rows, own tokens, hidden]
    # Prompts are padded on the right: the last real token of each is at another column.
    return states[torch.arange(rows, device=lengths.device), lengths - 1 - shared_tokens]


@torch.no_grad()
def answer(
    bundle: Sa2vaBundle,
    input_ids: Int[Tensor, "rows tokens"],
    attention_mask: Bool[Tensor, "rows tokens"],
    tiles_per_image: tuple[int, ...],
    vision: Float[Tensor, "tiles tile_tokens channels"],
    sam: SamLevels,
    *,
    choose: Choose | None = None,
    grids: Grids = (),
) -> list[Answer]:
    """Let the model answer, and segment what it says. One image a row.

    Args:
        input_ids: conversations up to where the assistant begins, padded on the right.
        attention_mask: true on real tokens.
        tiles_per_image, vision, sam, grids: as in `Sa2va.forward`.
        choose: see `generate`.

    Raises:
        ModelError: image tokens and tiles do not agree.
    """
    model = bundle.model
    embeddings = model.embed(input_ids, model.project(vision), tiles_per_image)
    positions = model.positions(input_ids, tiles_per_image, grids)
    generated = generate(model, embeddings, attention_mask, bundle.end_token_id, MAX_ANSWER_TOKENS, choose, positions)
    # One pass of the decoder for all rows; `of` then gives each row its own.
    masks = model.masks(generated.seg_hidden, sam, generated.row_of_object)
    return [
        Answer(
            bundle.tokenizer.decode(token_ids, skip_special_tokens=False),
            token_ids,
            masks.of(generated.row_of_object == row),
        )
        for row, token_ids in enumerate(generated.token_ids)
    ]


def select_mask(outputs: dict[str, Tensor], behaviour: Behaviour) -> Chosen:
    """Of the three masks of each object the one that the model expects to be best.

    Args:
        outputs: of `Sa2va.forward`: pred_masks, pred_ious, object_scores.
        behaviour: `sa2va` takes every object for present; `deixis` has learnt to tell.
    """
    best = outputs["pred_ious"].argmax(1)  # [objects]
    every = torch.arange(len(best), device=best.device)
    scores = outputs["object_scores"]
    present = scores.sigmoid() if behaviour == "deixis" else torch.ones_like(scores)
    return Chosen(outputs["pred_masks"][every, best], outputs["pred_ious"][every, best], present)
