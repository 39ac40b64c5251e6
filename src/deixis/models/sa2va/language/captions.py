"""Words for regions: the other direction of the segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.batch_records import Regions
from deixis.errors import OptionError
from deixis.models.sa2va.bundle import Sa2vaBundle
from deixis.models.sa2va.language.answers import Choose, generate
from deixis.models.sa2va.regions import shown_tiles


class Described(NamedTuple):
    """What was said of a row's regions, and the mean log-probability of its tokens, the end included."""

    text: str
    score: float


@torch.no_grad()
def describe(
    bundle: Sa2vaBundle,
    input_ids: Int[Tensor, "rows tokens"],
    attention_mask: Bool[Tensor, "rows tokens"],
    tiles_per_image: tuple[int, ...],
    vision: Float[Tensor, "tiles tile_tokens channels"],
    regions: Regions,
    max_new_tokens: int = 40,
    choose: Choose | None = None,
    shared_tokens: int = 0,
) -> list[Described]:
    """Answer questions about regions in words alone. At least one word is said, and no special token.

    Args:
        input_ids: conversations up to where the assistant begins, padded on the right; one per row.
        attention_mask: true on real tokens.
        tiles_per_image, vision, regions: as in `Sa2va.forward`.
        choose: the likeliest token by default; see `sampler`.
        shared_tokens: at the start of every row, where all are about one image; it is then read once.

    Raises:
        ModelError: image tokens do not agree with tiles and regions.
    """
    model, tokenizer = bundle.model, bundle.tokenizer
    embeddings = model.embed(input_ids, model.project(vision), tiles_per_image, regions)  # [rows, tokens, wide]
    positions = model.positions(input_ids, shown_tiles(tiles_per_image, regions))
    # A caption has no `[SEG]` and no image; the end stays allowed, after the first token.
    never = sorted(set(tokenizer.all_special_ids) - {bundle.end_token_id})
    said = generate(
        model,
        embeddings,
        attention_mask,
        bundle.end_token_id,
        max_new_tokens,
        choose,
        positions,
        never,
        min_tokens=1,
        shared_tokens=shared_tokens,
    )
    return [
        Described(tokenizer.decode(token_ids, skip_special_tokens=True).strip(), sum(log_probs) / len(log_probs))
        for token_ids, log_probs in zip(said.token_ids, said.log_probs, strict=True)
    ]


def sampler(seeds: Sequence[int], temperature: float = 1.0, top_p: float = 1.0) -> Choose:
    """Draws tokens for `generate`, each row by its own seed, so that what is drawn does not depend on the other rows.

    Args:
        seeds: one per row.
        temperature: below 1 prefers likely tokens.
        top_p: only the likeliest tokens that together reach this probability are drawn (arXiv 1904.09751).

    Raises:
        OptionError: a temperature that is not above 0, or top_p that is not above 0 and at most 1.
    """
    if temperature <= 0 or not 0 < top_p <= 1:
        raise OptionError(f"temperature must be above 0 and top_p in (0, 1], got {temperature} and {top_p}")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def choose(logits: Float[Tensor, "rows vocabulary"]) -> Int[Tensor, " rows"]:
        # [rows, vocabulary], likeliest first
        ordered, tokens = (logits.double() / temperature).softmax(-1).sort(descending=True, stable=True)
        reached = ordered.cumsum(-1)
        kept = ordered * (reached - ordered < top_p)  # by what comes before a token: the first always stays
        # [rows], on the CPU: the same on every device
        drawn = torch.stack([torch.rand((), generator=generator, dtype=torch.float64) for generator in generators])
        point = drawn.to(logits.device)[:, None] * kept.sum(-1, keepdim=True)  # [rows, 1], within what was kept
        # The first token at which the sum passes the point; it has a probability above 0.
        place = (kept.cumsum(-1) <= point).sum(-1, keepdim=True).clamp(max=logits.shape[1] - 1)
        return tokens.gather(1, place)[:, 0]  # from places in the order to ids

    return choose
