"""How the two halves of a segmenter see an image: tiles for the vision-language model, a square for SAM 2."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.records import Rle


def grid_for(size_hw: tuple[int, int], tile_px: int, max_tiles: int) -> tuple[int, int]:
    """(columns, rows) of the tile grid whose shape is nearest to the image's, as InternVL chooses it.

    Of two grids that are equally near, the larger one is taken if the image has the pixels for half of it.

    >>> grid_for((480, 640), 448, 1), grid_for((448, 896), 448, 12)
    ((1, 1), (2, 1))
    """
    height, width = size_hw
    grids = [(columns, rows) for columns in range(1, max_tiles + 1) for rows in range(1, max_tiles // columns + 1)]
    best, least = (1, 1), float("inf")
    # small grids first, as InternVL: ties are decided by this order
    for columns, rows in sorted(grids, key=lambda grid: (grid[0] * grid[1], grid[0])):
        gap = abs(width / height - columns / rows)
        roomy = width * height > 0.5 * tile_px * tile_px * columns * rows
        if gap < least or (gap == least and roomy):
            best, least = (columns, rows), gap
    return best


def tiles_of(image: UInt8[np.ndarray, "h w 3"], tile_px: int, max_tiles: int) -> UInt8[np.ndarray, "tiles 3 tile tile"]:
    """The tiles of an image, row by row, and after them, if there are several, the whole image as one more."""
    columns, rows = grid_for(image.shape[:2], tile_px, max_tiles)
    whole = squashed(image, (rows * tile_px, columns * tile_px))
    # [rows * tile, columns * tile, 3] to [rows, columns, 3, tile, tile] to [tiles, 3, tile, tile]
    tiles = whole.reshape(rows, tile_px, columns, tile_px, 3).transpose(0, 2, 4, 1, 3)
    tiles = tiles.reshape(-1, 3, tile_px, tile_px)
    if len(tiles) > 1:
        tiles = np.concatenate([tiles, squashed(image, (tile_px, tile_px)).transpose(2, 0, 1)[None]])
    return np.ascontiguousarray(tiles)


def squashed(image: UInt8[np.ndarray, "h w 3"], size_hw: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image resized to a size, its shape not kept; bicubic with antialiasing, as the released models take it."""
    if image.shape[:2] == size_hw:
        return image
    return np.array(Image.fromarray(image).resize(size_hw[::-1], Image.Resampling.BICUBIC))


def union_mask(masks_rle: tuple[Rle, ...], size_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """All pixels of any of the masks; none where there is no mask."""
    if not masks_rle:
        return np.zeros(size_hw, bool)
    return np.asarray(coco_mask.decode(coco_mask.merge(list(masks_rle))), dtype=bool)


def squashed_mask(mask: Bool[np.ndarray, "h w"], side: int) -> Bool[np.ndarray, "side side"]:
    """A mask on a square grid: cells that it covers by half, or by most if it covers none by half.

    A mask that is not empty never becomes empty: what is too small for the grid would otherwise be taught as absent.
    """
    if mask.shape == (side, side) or not mask.any():
        return mask if mask.shape == (side, side) else np.zeros((side, side), bool)
    # [side, side]: area averages
    shares = np.array(Image.fromarray(mask.astype(np.float32), "F").resize((side, side), Image.Resampling.BOX))
    covered = shares >= 0.5
    return covered if covered.any() else shares >= shares.max()
