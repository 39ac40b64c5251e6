"""Which of the tiles' tokens stand at the image placeholders of a conversation: the image's, then its regions'."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deixis.batch_records import Regions
from deixis.data.pixels.regions import OUTLINE_VALUES
from deixis.errors import ModelError


def shown_tiles(tiles_per_image: tuple[int, ...], regions: Regions | None) -> tuple[int, ...]:
    """Tiles of each image all of whose tokens stand in its conversation: those that are no focal views.

    Raises:
        ModelError: regions of another number of images, or of images with too few tiles.
    """
    if regions is None:
        return tiles_per_image
    if not len(regions.cells) == len(regions.focal_per_image) == len(tiles_per_image):
        raise ModelError(f"regions of {len(regions.cells)} images for {len(tiles_per_image)}; give one entry per image")
    shown = tuple(tiles - focal for tiles, focal in zip(tiles_per_image, regions.focal_per_image, strict=True))
    if any(whole < (tiles > 0) for whole, tiles in zip(shown, tiles_per_image, strict=True)):
        raise ModelError(f"images have {tiles_per_image} tiles, {regions.focal_per_image} of them focal views")
    return shown


def placed_tokens(
    image_tokens: Float[Tensor, "tiles tile_tokens hidden"],
    tiles_per_image: tuple[int, ...],
    regions: Regions | None,
    spatial: Float[Tensor, "all_regions hidden"] | None = None,
) -> tuple[Float[Tensor, "placeholders hidden"], tuple[int, ...]]:
    """The tokens in the order of the placeholders, row by row, and how many each row has.

    Args:
        spatial: tokens of the regions' outlines, image by image; None where the model has none.

    Raises:
        ModelError: another number of tiles than said, or a region of tokens that its image does not have.
    """
    tokens = image_tokens.shape[1]
    if len(image_tokens) != sum(tiles_per_image):
        raise ModelError(f"{len(image_tokens)} tiles are given, {sum(tiles_per_image)} are said to be")
    shown = shown_tiles(tiles_per_image, regions)
    flat = image_tokens.flatten(0, 1)  # [tiles * tile_tokens, hidden]
    if spatial is not None:
        flat = torch.cat([flat, spatial.to(flat.dtype)])  # outlines' tokens after those of all tiles
    if regions is None:
        return flat, tuple(tiles * tokens for tiles in tiles_per_image)
    chosen: list[int] = []
    # Where in `flat` the image's own tokens begin, and those of its outlines.
    start, outline = 0, sum(tiles_per_image) * tokens
    outlines = [len(of_image) for of_image in regions.outlines] or [0] * len(tiles_per_image)
    if (made := 0 if spatial is None else len(spatial)) != sum(outlines):
        raise ModelError(f"{sum(outlines)} outlines for a model that made {made} spatial tokens of them")
    for tiles, whole, cells, drawn in zip(tiles_per_image, shown, regions.cells, outlines, strict=True):
        last = tiles * tokens
        if any(not 0 <= cell < last + drawn for cell in cells):
            raise ModelError(f"a region has token {max(cells)}, its image's {tiles} tiles have {last}")
        chosen += range(start, start + whole * tokens)  # without focal views, which come last
        # `cells` counts through the image's tiles and on through its outlines, which lie elsewhere in `flat`.
        chosen += [start + cell if cell < last else outline + cell - last for cell in cells]
        start, outline = start + last, outline + drawn
    counts = tuple(whole * tokens + len(cells) for whole, cells in zip(shown, regions.cells, strict=True))
    return flat[torch.tensor(chosen, device=flat.device)], counts  # [placeholders, hidden]


def spatial_projection(hidden: int) -> nn.Sequential:
    """From outlines to embeddings of the language model, with random weights (seed torch first)."""
    return nn.Sequential(nn.Linear(OUTLINE_VALUES, hidden), nn.GELU(), nn.Linear(hidden, hidden))


def spatial_tokens(
    projection: nn.Sequential, outlines: Sequence[Float[Tensor, "_ values"]]
) -> Float[Tensor, "all_regions hidden"]:
    """One token per region, image by image. Of no regions the result is empty and still has a graph: every process of a
    distributed run must touch the same parameters.

    Raises:
        ModelError: outlines of another length.
    """
    weight = next(projection.parameters())
    if found := [tuple(outline.shape) for outline in outlines if outline.shape[1] != OUTLINE_VALUES]:
        raise ModelError(
            f"outlines have {OUTLINE_VALUES} values each, got {found[0]}; see data.pixels.regions.region_outline"
        )
    # [all regions, values] to [all regions, hidden]
    tokens: Tensor = projection(
        torch.cat([weight.new_zeros(0, OUTLINE_VALUES), *(outline.to(weight) for outline in outlines)])
    )
    return tokens


def in_every_frame(
    rows: Int[Tensor, " segs"], frames_per_image: tuple[int, ...]
) -> tuple[Int[Tensor, " objects"], Int[Tensor, " objects"]]:
    """For each object which `[SEG]` it is, and in which image: every `[SEG]` is one in each frame of its row.

    Args:
        rows: of each `[SEG]`, ascending.
        frames_per_image: of each row; empty for one each.
    """
    segs = torch.arange(len(rows), device=rows.device)
    if not frames_per_image:
        return segs, rows
    # For example rows [0, 0, 1] (two `[SEG]`s about the first clip, one about the second) and frames (2, 1):
    counts = torch.tensor(frames_per_image, device=rows.device)
    repeats = counts[rows]  # [segs]: 2, 2, 1
    starts = repeats.cumsum(0) - repeats  # [segs]: 0, 2, 4, where each one's objects begin
    segs = segs.repeat_interleave(repeats)  # [objects]: 0, 0, 1, 1, 2
    frame = torch.arange(len(segs), device=rows.device) - starts[segs]  # 0, 1, 0, 1, 0: frames within their clips
    # Frames of all rows are in one batch: 0, 1, 0, 1, 2.
    return segs, (counts.cumsum(0) - counts)[rows[segs]] + frame
