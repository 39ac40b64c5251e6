"""How a vision-language model takes a picture: in square tiles of one size, or in one piece whose size follows its own.

Both are an array of squares, so that pictures of all sizes stand in one batch: tiles, each a picture to the model, or
blocks, each one token of it. Of blocks the model also has to know how many rows and columns they form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from deixis.batch_records import Grid
from deixis.data.pixels.tiles import grid_for, squashed, tiles_of

TILE_SIDE = 16
"""Blocks on the side of a tile, where a limit is given in tiles."""
MAX_ASPECT = 200
"""Of the longer to the shorter side; longer strips are squashed."""
CLIP_SHARE = 4
"""A frame of a clip has at most, and at least, this fraction of the pixels of an image."""


class Cut(NamedTuple):
    """A picture in squares, and the rows and columns that they form; None where each is a picture to the model."""

    squares: UInt8[np.ndarray, "squares 3 side side"]
    grid: Grid | None


@dataclass(frozen=True)
class Tiling:
    """Square tiles, and after several the whole picture as one more; a frame of a clip is one tile.

    Attributes:
        square_px: side of a tile.
        side: of a tile's grid of tokens.
    """

    square_px: int
    side: int

    def cut(self, image: UInt8[np.ndarray, "h w 3"], max_tiles: int, clip: bool = False) -> Cut:
        """The picture's tiles, at most `max_tiles` and the whole."""
        return Cut(tiles_of(image, self.square_px, 1 if clip else max_tiles), None)

    def count(self, size_hw: tuple[int, int], max_tiles: int, clip: bool = False) -> int:
        """The number of tiles of a picture."""
        columns, rows = grid_for(size_hw, self.square_px, 1 if clip else max_tiles)
        return columns * rows + (columns * rows > 1)


@dataclass(frozen=True)
class Blocks:
    """The whole picture, its shape kept up to rounding, as rows and columns of blocks: one token each.

    Attributes:
        square_px: side of a block.
        min_pixels, max_pixels: area of the resized image; of a frame of a clip a quarter of both.
    """

    square_px: int
    min_pixels: int
    max_pixels: int

    def grid(self, size_hw: tuple[int, int], max_tiles: int, clip: bool = False) -> Grid:
        """Rows and columns of a picture, with at most as many blocks as `max_tiles` tiles have.

        >>> Blocks(28, 512 * 28**2, 2048 * 28**2).grid((480, 640), 12)
        (20, 27)
        """
        share, most = (CLIP_SHARE if clip else 1), max_tiles * (TILE_SIDE * self.square_px) ** 2
        max_pixels = min(self.max_pixels, most) // share
        min_pixels = min(self.min_pixels // share, max_pixels)
        height, width = size_hw
        height, width = max(height, width // MAX_ASPECT), max(width, height // MAX_ASPECT)
        # As Qwen2-VL's `smart_resize`: rounded to whole blocks; outside the limits scaled by the square root of the
        # areas' ratio, down to fit in or up to reach them.
        rows, columns = round(height / self.square_px), round(width / self.square_px)
        area = rows * columns * self.square_px**2
        if area > max_pixels:
            shrink = math.sqrt(height * width / max_pixels) * self.square_px
            return max(1, math.floor(height / shrink)), max(1, math.floor(width / shrink))
        if area < min_pixels:  # also a strip thinner than half a block, with 0 rows or columns
            grow = math.sqrt(min_pixels / (height * width)) / self.square_px
            return math.ceil(height * grow), math.ceil(width * grow)
        return rows, columns

    def cut(self, image: UInt8[np.ndarray, "h w 3"], max_tiles: int, clip: bool = False) -> Cut:
        """The picture's blocks, row by row."""
        side, (rows, columns) = self.square_px, self.grid((image.shape[0], image.shape[1]), max_tiles, clip)
        whole = squashed(image, (rows * side, columns * side))
        # [rows * side, columns * side, 3] to [rows, columns, 3, side, side] to [blocks, 3, side, side]
        blocks = whole.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
        return Cut(np.ascontiguousarray(blocks.reshape(-1, 3, side, side)), (rows, columns))

    def count(self, size_hw: tuple[int, int], max_tiles: int, clip: bool = False) -> int:
        """The number of blocks of a picture."""
        return math.prod(self.grid(size_hw, max_tiles, clip))


Cutter = Tiling | Blocks
