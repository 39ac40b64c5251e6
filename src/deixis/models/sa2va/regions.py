"""Which of the tiles' tokens stand at the image placeholders of a conversation: the image's, then its regions'."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deixis.errors import ModelError
from deixis.refer_records import Regions


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
