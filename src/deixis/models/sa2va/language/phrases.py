"""Many conversations about few images: each image goes through every network once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from deixis.batch_records import Grids
from deixis.errors import ModelError
from deixis.models.sa2va.bundle import Sa2vaBundle
from deixis.models.sa2va.language.answers import generate
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.sam import SamLevels


@torch.no_grad()
def segment(
    model: Sa2va,
    input_ids: Int[Tensor, "rows tokens"],
    attention_mask: Bool[Tensor, "rows tokens"],
    image_of_row: tuple[int, ...],
    tiles_per_image: tuple[int, ...],
    vision: Float[Tensor, "tiles tile_tokens channels"],
    sam: SamLevels,
    *,
    grids: Grids = (),
) -> dict[str, Tensor]:
    """Masks of every `[SEG]` of given conversations, several to an image.

    The language model reads an image once and every row from there on; its keys and values are copied to the rows.

    Args:
        input_ids: whole conversations with the answer wanted ("Sure, [SEG]."), padded on the right. The rows of an
            image begin alike, up to its last token.
        attention_mask: true on real tokens.
        image_of_row: the image each row is about; every image has a row.
        tiles_per_image, vision, sam, grids: of the images, as in `Sa2va.forward`.

    Returns:
        pred_masks, pred_ious, object_scores and object_image (the row of each) as `Sa2va.forward` does.

    Raises:
        ModelError: rows of an image begin differently, or image tokens and tiles do not agree.
    """
    columns = torch.arange(input_ids.shape[1], device=input_ids.device)  # [tokens]
    images = torch.tensor(image_of_row, device=input_ids.device)  # [rows]
    first_row = torch.tensor([image_of_row.index(i) for i in range(len(tiles_per_image))], device=input_ids.device)
    prefix = _prefixes(model, input_ids, images, first_row=first_row)
    tiles_of_rows = tuple(tiles_per_image[image] for image in image_of_row)
    positions = model.positions(input_ids, tiles_of_rows, tuple(grids[image] for image in image_of_row if grids))
    # [kinds, rows, tokens]. Written out, because the rest of each row begins at a column of its own.
    numbers = columns.expand(1, len(input_ids), -1) if positions is None else positions

    cache, prefix_mask = _read_images(
        model, input_ids, prefix, numbers=numbers, image_tokens=model.project(vision), tiles_per_image=tiles_per_image
    )
    cache.batch_select_indices(images)  # keys and values of [images, ...] to [rows, ...]

    rest, inside = _rests(prefix, columns)
    real = attention_mask.gather(1, rest) & inside
    ids = input_ids.gather(1, rest)
    hidden = model.read_on(
        model.embed_tokens(ids),
        torch.cat([prefix_mask[images], real], dim=1),  # [rows, longest + longest rest]
        _unpacked(numbers.gather(2, rest.expand(len(numbers), -1, -1))),
        cache,
    )
    rows, places = torch.where((ids == model.seg_token_id) & real)
    masks = model.masks(hidden[rows, places], sam, images[rows])
    return {
        "pred_masks": masks.logits,
        "pred_ious": masks.ious,
        "object_scores": masks.object_scores,
        "object_image": rows,
    }


class _Prefixes(NamedTuple):
    """What the rows of an image have in common.

    Attributes:
        first_row: the first row of each image.
        lengths: tokens of each row up to its last image token.
    """

    first_row: Int[Tensor, " images"]
    lengths: Int[Tensor, " rows"]


def _prefixes(
    model: Sa2va,
    input_ids: Int[Tensor, "rows tokens"],
    images: Int[Tensor, " rows"],
    *,
    first_row: Int[Tensor, " images"],
) -> _Prefixes:
    """Raises ModelError where rows about one image begin differently."""
    columns = torch.arange(input_ids.shape[1], device=input_ids.device)
    # The highest column of an image token, counted from 1: the tokens up to and with it.
    lengths = ((input_ids == model.image_token_id) * (columns + 1)).amax(1)
    pattern_row = first_row[images]  # [rows]: the first row of each row's image
    same = (input_ids == input_ids[pattern_row]) | (columns >= lengths[:, None])  # [rows, tokens]
    if not same.all() or not torch.equal(lengths, lengths[pattern_row]):
        raise ModelError("rows about one image must begin alike; write the image first in every one of them")
    return _Prefixes(first_row, lengths)


def _read_images(
    model: Sa2va,
    input_ids: Int[Tensor, "rows tokens"],
    prefix: _Prefixes,
    *,
    numbers: Int[Tensor, "kinds rows tokens"],
    image_tokens: Float[Tensor, "tiles tile_tokens wide"],
    tiles_per_image: tuple[int, ...],
) -> tuple[DynamicCache, Bool[Tensor, "images longest"]]:
    """Keys and values of each image's prefix, read in its first row, and which of them are real."""
    longest, columns = int(prefix.lengths.max()), torch.arange(input_ids.shape[1], device=input_ids.device)
    mask = (columns < prefix.lengths[:, None])[prefix.first_row][:, :longest]  # [images, longest]
    # Beyond a shorter prefix its question begins, which is read later: hidden by the mask.
    ids = input_ids[prefix.first_row][:, :longest].masked_fill(~mask, 0)
    cache = DynamicCache(config=model.vlm.config.get_text_config())
    embeddings = model.embed(ids, image_tokens, tiles_per_image)  # [images, longest, wide]
    model.read_on(embeddings, mask, _unpacked(numbers[:, prefix.first_row, :longest]), cache)
    return cache, mask


def _rests(
    prefix: _Prefixes, columns: Int[Tensor, " tokens"]
) -> tuple[Int[Tensor, "rows longest_rest"], Bool[Tensor, "rows longest_rest"]]:
    """The columns after each row's prefix, moved to the left, and which of them the row has."""
    width = len(columns)
    rest = prefix.lengths[:, None] + columns[: width - int(prefix.lengths.min())]
    return rest.clamp(max=width - 1), rest < width


def _unpacked(numbers: Int[Tensor, "kinds batch tokens"]) -> Tensor:
    """Positions as the language model wants them: three kinds of them, or plain ones."""
    return numbers if len(numbers) > 1 else numbers[0]


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
