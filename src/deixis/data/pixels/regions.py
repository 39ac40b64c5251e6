"""Masks as regions that a language model can be asked about: cells of the token grids of the tiles it sees.

A region's tokens are the image's own at the cells that the mask covers in the view of the whole image, as released
Sa2VA models have it. Small regions cover few cells or none there; for them the model also gets a focal view, a crop
around the mask (Describe Anything, arXiv 2504.16072), as one more tile, and the mask's cells in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from deixis.data.pixels.tiles import squashed, squashed_mask
from deixis.errors import DataError
from deixis.geometry.masks import box_of_mask

FOCAL_SCALE = 3.0  # sides of a focal view, in sides of the mask's box
FOCAL_MIN_PX = 48  # and at least this many pixels
FOCAL_CELLS = 16  # a region with fewer cells in the view of the whole image is also shown enlarged
OUTLINE_SIDE = 32  # of the square in which an outline is drawn
OUTLINE_VALUES = OUTLINE_SIDE**2 + 4


@dataclass(frozen=True)
class RegionViews:
    """The regions of one image.

    Attributes:
        cells: one tuple per region, not empty: numbers among the tokens of all tiles of the image, focal views last;
            where outlines are used, each region's is its last token, numbered on after those of the tiles.
        focal: the focal views, in the order of their regions; perhaps none.
        outlines: see `region_outline`; none where they are not used.
    """

    cells: tuple[tuple[int, ...], ...]
    focal: UInt8[np.ndarray, "views 3 tile tile"]
    outlines: Float[np.ndarray, "regions values"]


def region_views(
    image: UInt8[np.ndarray, "h w 3"],
    masks: Sequence[Bool[np.ndarray, "h w"]],
    tiles: int,
    tile_px: int,
    side: int,
    released: bool = False,
    outlined: bool = False,
) -> RegionViews:
    """Where the masks are among the tokens of the model's input.

    Args:
        tiles: of the image without focal views; the last of them shows it whole.
        tile_px: side of a tile, in pixels.
        side: of a tile's grid of tokens.
        released: as released models were trained: nearest cells, no focal view.
        outlined: with outlines, for models with spatial tokens.

    Raises:
        DataError: a mask without a pixel.
    """
    cells: list[tuple[int, ...]] = []
    focal: list[np.ndarray] = []
    for mask in masks:
        # Tokens are numbered tile by tile; the thumbnail, which shows the image whole, is the last of the tiles.
        numbers = np.flatnonzero(region_cells(mask, side, released)) + (tiles - 1) * side**2
        if not released and len(numbers) < FOCAL_CELLS:
            left, top, right, bottom = focal_box_px(mask)
            close = np.flatnonzero(region_cells(mask[top:bottom, left:right], side))
            # the region's view comes after the tiles and earlier views
            numbers = np.concatenate([numbers, close + (tiles + len(focal)) * side**2])
            focal.append(squashed(image[top:bottom, left:right], (tile_px, tile_px)).transpose(2, 0, 1))
        cells.append(tuple(numbers.tolist()))
    if outlined:
        first = (tiles + len(focal)) * side**2
        cells = [(*of_region, first + number) for number, of_region in enumerate(cells)]
    outlines = [region_outline(mask) for mask in masks] if outlined else []
    return RegionViews(
        tuple(cells),
        np.stack(focal) if focal else np.zeros((0, 3, tile_px, tile_px), np.uint8),
        np.stack(outlines) if outlines else np.zeros((0, OUTLINE_VALUES), np.float32),
    )


def region_outline(mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, " values"]:
    """A mask's form, whatever its size and place, and then its size and place, all in [-1, 1].

    Returns:
        How much of each cell of a square around the mask's box it covers (its longer side is the square's), row by
        row; then the box's centre (x, y), width and height as shares of the image's.
    """
    (height, width), (left, top, right, bottom) = mask.shape, box_of_mask(mask)
    side = max(right - left, bottom - top)
    square = np.zeros((side, side), np.float32)
    x, y = (side - (right - left)) // 2, (side - (bottom - top)) // 2  # the shorter side in the middle
    square[y : y + bottom - top, x : x + right - left] = mask[top:bottom, left:right]
    edges, pixels = np.linspace(0, side, OUTLINE_SIDE + 1)[:, None], np.arange(side)
    # [outline side, side]: of each cell with each pixel
    overlap = np.clip(np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels), 0, None)
    shares = (overlap * (OUTLINE_SIDE / side)).astype(np.float32)  # rows sum to 1
    drawn = shares @ square @ shares.T  # [outline side, outline side], area averages
    box = ((left + right) / width / 2, (top + bottom) / height / 2, (right - left) / width, (bottom - top) / height)
    return np.concatenate([drawn.ravel(), np.array(box, np.float32)]) * np.float32(2) - np.float32(1)


def region_cells(mask: Bool[np.ndarray, "h w"], side: int, nearest: bool = False) -> Bool[np.ndarray, "side side"]:
    """The cells of a grid over the image that belong to a region; at least one.

    Args:
        nearest: those whose first pixel is inside, as `interpolate(mode="nearest")` has it; otherwise, and where these
            are none, those that are covered by half, or else by most.

    Raises:
        DataError: the mask has no pixel.
    """
    if not mask.any():
        raise DataError("a region without a pixel cannot be described; remove the mask")
    if nearest:
        # as torch: the pixel at the start of a cell
        rows, columns = (np.arange(side) * length // side for length in mask.shape)
        sampled: np.ndarray = mask[np.ix_(rows, columns)]
        if sampled.any():
            return sampled
    return squashed_mask(mask, side)


def focal_box_px(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the view around a mask that is not empty: what of it lies inside the image."""
    ends = []
    box = box_of_mask(mask)
    for axis in (0, 1):
        first, last = box[axis], box[axis + 2]
        reach = max(FOCAL_SCALE * (last - first), FOCAL_MIN_PX) / 2
        middle = (first + last) / 2
        # box is (x, y, x, y), shape (h, w): axis 0 is shape 1
        ends.append((max(0, round(middle - reach)), min(mask.shape[1 - axis], round(middle + reach))))
    (left, right), (top, bottom) = ends
    return left, top, right, bottom
