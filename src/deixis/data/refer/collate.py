"""Decoded samples and conversations to a `ReferBatch`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from deixis.batch_records import ReferBatch, ReferTarget, Regions
from deixis.data.pixels.cuts import Blocks, Cutter, Tiling
from deixis.data.pixels.regions import RegionViews, region_views
from deixis.data.pixels.tiles import squashed, squashed_mask, union_mask
from deixis.data.refer.conversation import ConversationEncoder, Turn
from deixis.errors import DataError
from deixis.refer_records import ReferSample


@dataclass(frozen=True)
class Views:
    """The sizes at which a model takes an image.

    Attributes:
        tile_px: side of a tile of the vision-language model.
        max_tiles: maximum number of tiles of an image, the thumbnail not counted.
        sam_px: side of SAM 2's square.
        mask_px: side of the grid on which masks are compared.
        tile_side: side of a tile's grid of tokens.
        released: regions as released models take them; see `region_views`.
        outlined: regions have outlines; see `region_views`.
        blocks: images are shown whole, in blocks, instead of in tiles.
    """

    tile_px: int
    max_tiles: int
    sam_px: int
    mask_px: int
    tile_side: int = 16
    released: bool = False
    outlined: bool = False
    blocks: Blocks | None = None

    @property
    def cutter(self) -> Cutter:
        """Cuts pictures for the vision-language model."""
        return Tiling(self.tile_px, self.tile_side) if self.blocks is None else self.blocks


@dataclass(frozen=True)
class Question:
    """A decoded sample and a conversation about it.

    Attributes:
        sample: an image, or the first frame of a clip.
        asked: what each mask of the answers is: (position of expression, sentence).
        regions: what each region that the questions name is: position of expression.
        later: the other frames of a clip, of one size and with the same expressions.
        seed: see `ReferTarget`.
    """

    sample: ReferSample
    turns: tuple[Turn, ...]
    asked: tuple[tuple[int, str], ...]
    regions: tuple[int, ...] = ()
    later: tuple[ReferSample, ...] = ()
    seed: int | None = None

    @property
    def frames(self) -> tuple[ReferSample, ...]:
        """All frames of the clip; the sample alone where it is an image, and nothing where there is none."""
        return (self.sample, *self.later) if self.sample.has_image else ()


def collate_questions(
    questions: Sequence[Question], encode: ConversationEncoder, views: Views, pad_token_id: int, max_tokens: int
) -> ReferBatch:
    """A batch. An image is shown in tiles, a clip in one tile per frame; or both in blocks.

    SAM 2 sees only those in which a mask is asked for.

    Args:
        max_tokens: of a conversation. A data set's own chat without masks loses exchanges at its end until it fits.

    Raises:
        DataError: a conversation is longer. Cutting it off could cut off a `[SEG]`.
    """
    shown, tiles, grids, conversations, regions_of, squares = [], [], [], [], [], []
    for question in questions:
        pictures = [_pixels(frame) for frame in question.frames]
        cuts = [views.cutter.cut(picture, views.max_tiles, bool(question.later)) for picture in pictures]
        # [tiles, 3, tile, tile]: of all frames, one after another; then close views of small regions
        shown.append(_stacked([cut.squares for cut in cuts], views.tile_px))
        grids.append(tuple(cut.grid for cut in cuts if cut.grid is not None))
        regions_of.append(_regions(question, len(shown[-1]), views))
        tiles.append(np.concatenate([shown[-1], regions_of[-1].focal]))
        # [frames, 3, side, side]
        squared = [squashed(p, (views.sam_px, views.sam_px)).transpose(2, 0, 1)[None] for p in pictures]
        squares.append(_stacked(squared, views.sam_px))
        conversations.append(_encoded(question, encode, len(shown[-1]), regions_of[-1], max_tokens=max_tokens))
    ids, attention, labels = _padded(conversations, pad_token_id)
    frames = tuple(len(question.frames) if question.asked else 0 for question in questions)
    return ReferBatch(
        tiles_u8=torch.from_numpy(np.concatenate(tiles)),
        tiles_per_image=tuple(len(of_image) for of_image in tiles),
        # A row that asks for no mask costs SAM 2 nothing: none of its frames is passed on.
        sam_pixels_u8=torch.from_numpy(
            np.concatenate([square[:count] for square, count in zip(squares, frames, strict=True)])
        ),
        input_ids=ids,
        attention_mask=attention,
        labels=labels,
        targets=tuple(_target(question, views.mask_px) for question in questions),
        regions=_joined(regions_of, views.outlined),
        # Of what is the same in every epoch: close views of regions, which are not, are left out.
        keys=tuple(_key(*pixels) for pixels in zip(shown, squares, strict=True)),
        # Empty stands for one frame per row, the form in which `Sa2va.forward` repeats nothing.
        frames_per_image=() if all(count == 1 for count in frames) else frames,
        grids=tuple(grids) if any(grids) else (),
    )


def _encoded(
    question: Question, encode: ConversationEncoder, tiles: int, regions: RegionViews, *, max_tokens: int
) -> tuple[list[int], list[int]]:
    """(input_ids, labels) of a conversation about a picture, or a clip, in `tiles` tiles or blocks altogether."""
    turns, pictures = question.turns, len(question.frames)
    shown = tiles // max(pictures, 1), [len(cells) for cells in regions.cells], pictures
    input_ids, labels = encode(turns, *shown)
    while len(input_ids) > max_tokens and len(turns) > 1 and turns[-1].given and not question.asked:
        turns = turns[:-1]  # a long chat loses its last exchange, and no mask with it
        input_ids, labels = encode(turns, *shown)
    if len(input_ids) > max_tokens:
        raise DataError(
            f"{question.sample.source}: the conversation has {len(input_ids)} tokens, at most {max_tokens} are "
            "allowed; shorten the phrases, ask for fewer at a time, or raise --max-tokens"
        )
    return input_ids, labels


def _padded(
    conversations: Sequence[tuple[list[int], list[int]]], pad_token_id: int
) -> tuple[Int[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"], Int[Tensor, "batch tokens"]]:
    """(input_ids, attention_mask, labels), padded on the right."""
    # [rows, tokens of the longest]
    shape = len(conversations), max(len(input_ids) for input_ids, _ in conversations)
    ids, labels = torch.full(shape, pad_token_id), torch.full(shape, -100)  # -100: no loss
    attention = torch.zeros(shape, dtype=torch.bool)
    for row, (own_ids, own_labels) in enumerate(conversations):
        ids[row, : len(own_ids)] = torch.tensor(own_ids)
        labels[row, : len(own_labels)] = torch.tensor(own_labels)
        attention[row, : len(own_ids)] = True
    return ids, attention, labels


def _key(*pixels: np.ndarray) -> str:
    """Of what both halves see of an image."""
    digest = hashlib.sha256()
    for array in pixels:
        digest.update(repr(array.shape).encode())  # arrays of other shapes may have the same bytes
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]  # 128 bits; it names a file of `FrozenFeatures`


def _pixels(sample: ReferSample) -> np.ndarray:
    assert isinstance(sample.image, np.ndarray)
    return sample.image


def _stacked(pictures: Sequence[np.ndarray], side: int) -> np.ndarray:
    """[n, 3, side, side] of several such; of none, n is 0."""
    return np.concatenate([np.zeros((0, 3, side, side), np.uint8), *pictures])


def _regions(question: Question, tiles: int, views: Views) -> RegionViews:
    sample = question.sample
    masks = [union_mask(sample.expressions[position].masks_rle, sample.size_hw) for position in question.regions]
    try:
        return region_views(
            _pixels(sample), masks, tiles, views.tile_px, views.tile_side, views.released, views.outlined
        )
    except DataError as error:
        raise DataError(f"{sample.source}: {error}") from error


def _joined(of_images: Sequence[RegionViews], outlined: bool) -> Regions | None:
    """None where no question names a region."""
    if not any(views.cells for views in of_images):
        return None
    cells = tuple(tuple(cell for region in views.cells for cell in region) for views in of_images)
    outlines = tuple(torch.from_numpy(views.outlines) for views in of_images) if outlined else ()
    return Regions(tuple(len(views.focal) for views in of_images), cells, outlines)


def _target(question: Question, mask_px: int) -> ReferTarget:
    sample = question.sample
    masks = [  # masks * frames of [side, side]: all frames of the first mask, then those of the next
        squashed_mask(union_mask(frame.expressions[position].masks_rle, frame.size_hw), mask_px)
        # asked expressions outermost: the model's `[SEG]` states come in the order of the answers
        for position, _ in question.asked
        for frame in question.frames
    ]
    return ReferTarget(
        masks=torch.from_numpy(np.stack(masks)) if masks else torch.zeros((0, mask_px, mask_px), dtype=torch.bool),
        texts=tuple(text for _, text in question.asked for _ in question.frames),
        size_hw=sample.size_hw,
        image_id=sample.image_id,
        source=sample.source,
        seed=question.seed,
    )
