"""Segmenters of a few hundred thousand random numbers, and batches for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from deixis.models.sa2va import Sa2vaBundle, init_sa2va
from deixis.models.sa2va.small import small_chat_tokenizer, small_sam_config, small_vlm_config

WORDS = ("red", "blue", "circle", "square")


def tiny_segmenter(seed: int = 0, tied: bool = True, behaviour: Any = "deixis") -> Sa2vaBundle:
    """64 px tiles of 16 tokens, SAM 2 at 64 px, masks of 16 x 16; in evaluation mode."""
    torch.manual_seed(seed)
    tokenizer = small_chat_tokenizer(WORDS)
    vlm = small_vlm_config(
        tokenizer, tile_px=64, vision_width=32, vision_layers=2, text_width=64, text_layers=2, tied=tied
    )
    sam = small_sam_config(64, channels=32, widths=(8, 16, 24, 32), blocks=(1, 1, 2, 1))
    bundle = init_sa2va(vlm, sam, tokenizer, behaviour=behaviour)
    with torch.no_grad():  # what starts at zero would hide mistakes
        for name, parameter in bundle.model.named_parameters():
            if "norm" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    bundle.model.eval()
    return bundle


class Batch(NamedTuple):
    """A segmenter's inputs, by the names of its arguments."""

    tiles: Tensor
    tiles_per_image: tuple[int, ...]
    sam_pixels: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def batch_of(
    bundle: Sa2vaBundle, conversations: list[list[tuple[str, str]]], tiles: tuple[int, ...], seed: int = 1
) -> Batch:
    """Random pictures and the given (question, answer) turns, one list an image; the image stands in the first."""
    generator = torch.Generator().manual_seed(seed)
    rows, label_rows = [], []
    for turns, count in zip(conversations, tiles, strict=True):
        ids: list[int] = []
        labels: list[int] = []
        for i, (question, answer) in enumerate(turns):
            image = bundle.template.image(count * bundle.tokens_per_tile) + "\n" if i == 0 else ""
            asked = bundle.tokenizer.encode(
                bundle.template.question(image + question, first=i == 0), add_special_tokens=False
            )
            said = bundle.tokenizer.encode(bundle.template.answer(answer), add_special_tokens=False)
            ids += asked + said
            labels += [-100] * len(asked) + said
        rows.append(torch.tensor(ids))
        label_rows.append(torch.tensor(labels))
    pad = torch.nn.utils.rnn.pad_sequence
    lengths = torch.tensor([len(row) for row in rows])
    side, sam_side = bundle.tile_px, bundle.sam_px
    pixels = torch.randint(0, 256, (sum(tiles), 3, side, side), dtype=torch.uint8, generator=generator)
    sam_pixels = torch.randint(0, 256, (len(tiles), 3, sam_side, sam_side), dtype=torch.uint8, generator=generator)
    return Batch(
        bundle.normalise_tiles(pixels),
        tiles,
        bundle.normalise_sam(sam_pixels),
        pad(rows, batch_first=True, padding_value=bundle.tokenizer.pad_token_id),
        torch.arange(int(lengths.max()))[None] < lengths[:, None],
        pad(label_rows, batch_first=True, padding_value=-100),
    )


TURNS: list[list[tuple[str, str]]] = [
    [("Please segment the red circle.", "Sure, [SEG]."), ("And the blue square?", "It is [SEG]. And [SEG].")],
    [("What is this?", "A square.")],
    [("Please segment the blue circle in this image.", "[SEG].")],
]
"""Three objects, none and one."""
