"""Outlines, colours and textures of the things that generated scenes show.

An outline is a list of closed contours in a unit frame (x right, y down, within [-1, 1]); contours are filled
even-odd, so a second contour inside the first is a hole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Outline = list[np.ndarray]  # each of shape (points, 2)

OVERSAMPLING = 4  # an outline is filled at this many times the resolution, then averaged: smooth edges, exact masks

COLOURS_RGB: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (38, 160, 54),
    "blue": (35, 84, 210),
    "yellow": (245, 222, 50),
    "orange": (250, 135, 20),
    "purple": (134, 54, 180),
    "pink": (250, 150, 195),
    "cyan": (60, 215, 225),
    "brown": (121, 72, 36),
    "white": (245, 245, 245),
}


def _regular(corners: int, turn: float = -90.0, inner: float | None = None) -> np.ndarray:
    """Corners on the unit circle from angle `turn`; with `inner`, a second radius at every other corner."""
    count = corners if inner is None else 2 * corners
    angles = np.deg2rad(turn) + np.arange(count) * 2 * np.pi / count
    radii = np.ones(count) if inner is None else np.where(np.arange(count) % 2 == 0, 1.0, inner)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _arc(centre: tuple[float, float], radius: float, start: float, stop: float, steps: int = 24) -> np.ndarray:
    """Points on a circle between two angles in degrees."""
    angles = np.deg2rad(np.linspace(start, stop, steps))
    return np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], 1)


def _points(*pairs: float) -> np.ndarray:
    return np.asarray(pairs, dtype=np.float64).reshape(-1, 2)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y - 2], 1) / 16


def _crescent() -> np.ndarray:
    outer = _arc((0, 0), 1.0, 50, 310, 40)
    inner = _arc((0.42, 0), 0.80, 286, 74, 32)
    return np.concatenate([outer, inner])


def _gear() -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radii = np.where(np.floor(np.arange(96) / 6) % 2 == 0, 1.0, 0.72)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


KNOWN_SHAPES: dict[str, Callable[[], Outline]] = {
    "circle": lambda: [_arc((0, 0), 0.95, 0, 352.5, 48)],
    "square": lambda: [_points(-0.85, -0.85, 0.85, -0.85, 0.85, 0.85, -0.85, 0.85)],
    "triangle": lambda: [_points(0, -0.95, 0.95, 0.8, -0.95, 0.8)],
    "star": lambda: [_regular(5, inner=0.42)],
    "ring": lambda: [_arc((0, 0), 1.0, 0, 352.5, 48), _arc((0, 0), 0.55, 0, 352.5, 48)],
    "cross": lambda: [
        _points(
            -0.3,
            -1,
            0.3,
            -1,
            0.3,
            -0.3,
            1,
            -0.3,
            1,
            0.3,
            0.3,
            0.3,
            0.3,
            1,
            -0.3,
            1,
            -0.3,
            0.3,
            -1,
            0.3,
            -1,
            -0.3,
            -0.3,
            -0.3,
        )
    ],
    "heart": lambda: [_heart()],
    "diamond": lambda: [_points(0, -1, 0.62, 0, 0, 1, -0.62, 0)],
    "moon": lambda: [_crescent()],
    "arrow": lambda: [_points(1, 0, 0.2, -0.75, 0.2, -0.28, -1, -0.28, -1, 0.28, 0.2, 0.28, 0.2, 0.75)],
}

# Never drawn and never named while the built-in models are trained: what a demonstration fine-tunes on.
NEW_SHAPES: dict[str, Callable[[], Outline]] = {
    "gear": lambda: [_gear(), _arc((0, 0), 0.3, 0, 345, 24)],
    "house": lambda: [
        _points(
            -0.8,
            1,
            -0.8,
            -0.1,
            -1,
            -0.1,
            0,
            -1,
            0.4,
            -0.64,
            0.4,
            -0.95,
            0.68,
            -0.95,
            0.68,
            -0.39,
            1,
            -0.1,
            0.8,
            -0.1,
            0.8,
            1,
        )
    ],
    "fish": lambda: [
        np.concatenate([_arc((0.25, 0), 0.72, -140, 140, 32) * (1, 0.8), _points(-1, 0.6, -0.78, 0, -1, -0.6)])
    ],
    "mushroom": lambda: [
        np.concatenate([_arc((0, 0), 1.0, 180, 360, 32), _points(0.3, 0.05, 0.36, 0.95, -0.36, 0.95, -0.3, 0.05)])
    ],
    "lightning bolt": lambda: [_points(0.25, -1, -0.65, 0.15, -0.08, 0.15, -0.3, 1, 0.65, -0.25, 0.1, -0.25, 0.55, -1)],
    "bow tie": lambda: [
        _points(-1, -0.65, -0.15, -0.18, 0.15, -0.18, 1, -0.65, 1, 0.65, 0.15, 0.18, -0.15, 0.18, -1, 0.65)
    ],
}
TEXTURES = ("plain", "striped", "dotted")

# How far a shape may be turned, in degrees, before its name would no longer fit.
TURN_LIMIT_DEG = {"square": 14.0, "diamond": 14.0, "arrow": 180.0, "star": 180.0, "moon": 60.0, "cross": 20.0}
DEFAULT_TURN_LIMIT_DEG = 25.0


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels of a picture."""

    left: int
    top: int
    size_hw: tuple[int, int]

    @staticmethod
    def around(centre_xy_px: tuple[float, float], radius_px: float, size_hw: tuple[int, int]) -> Window:
        """The pixels within a radius (by row and by column), clipped to the picture."""
        reach = radius_px * 1.3 + 2  # outlines reach up to 1.3 times the radius at their corners
        left, top = (max(0, int(centre - reach)) for centre in centre_xy_px)
        right, bottom = (min(side, int(c + reach) + 1) for c, side in zip(centre_xy_px, size_hw[::-1], strict=True))
        return Window(left, top, (bottom - top, right - left))

    @property
    def slices(self) -> tuple[slice, slice]:
        """For indexing (height, width) arrays."""
        return slice(self.top, self.top + self.size_hw[0]), slice(self.left, self.left + self.size_hw[1])


def outline_of(shape: str) -> Outline:
    """The unit outline of a shape by name."""
    return [np.asarray(contour, dtype=np.float64) for contour in (KNOWN_SHAPES | NEW_SHAPES)[shape]()]


def coverage(
    outline: Outline, centre_xy_px: tuple[float, float], radius_px: float, turn_deg: float, window: Window
) -> Float[np.ndarray, "h w"]:
    """How much of each pixel of a window a placed outline covers, in [0, 1]."""
    turn = np.deg2rad(turn_deg)
    # points are rows: `contour @ rotation` turns clockwise, as y points down
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    scale = OVERSAMPLING * 16  # cv2 takes fixed-point coordinates: here 4 fractional bits
    centre = np.subtract(centre_xy_px, (window.left, window.top))
    contours = [
        # -8 of 16 is half a pixel: cv2 counts from the centres of pixels
        np.round(((contour @ rotation) * radius_px + centre) * scale - 8).astype(np.int32)
        for contour in outline
    ]
    height, width = window.size_hw
    canvas = np.zeros((height * OVERSAMPLING, width * OVERSAMPLING), np.uint8)
    cv2.fillPoly(canvas, contours, 255, lineType=cv2.LINE_8, shift=4)
    covered = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(covered, np.float32) / np.float32(255)


def paint(
    texture: str, colour_rgb: np.ndarray, size_hw: tuple[int, int], period_px: float, rng: np.random.Generator
) -> Float[np.ndarray, "h w 3"]:
    """A textured surface: the colour, and a darker or lighter shade of it in stripes or dots."""
    height, width = size_hw
    surface = np.broadcast_to(colour_rgb.astype(np.float32), (height, width, 3)).copy()
    if texture == "plain":
        return surface
    shade = colour_rgb * 0.45 if colour_rgb.mean() > 100 else colour_rgb * 0.4 + 150
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    u, v = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    if texture == "striped":
        marked = (u / period_px) % 1 < 0.5
    else:
        marked = ((u / period_px) % 1 - 0.5) ** 2 + ((v / period_px) % 1 - 0.5) ** 2 < 0.1
    surface[marked] = shade
    return surface


def background(size_hw: tuple[int, int], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """A muted backdrop: a gradient, soft blotches, a few thin lines, grain. Nothing on it has a name."""
    height, width = size_hw
    corners = rng.uniform(40, 215, (2, 2, 1)) + rng.uniform(-22, 22, (2, 2, 3))
    canvas = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    cells = int(rng.integers(3, 9))
    blotches = rng.normal(0, 1, (cells, cells, 1)) * rng.uniform(0, 18) + rng.normal(0, 1, (cells, cells, 3)) * 4
    canvas += cv2.resize(blotches.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(0, 4))):
        ends = rng.uniform(0, 1, (2, 2)) * (width, height)
        shade = tuple(float(x) for x in canvas.mean((0, 1)) + rng.uniform(-35, 35))
        start, stop = (tuple(int(x) for x in end) for end in ends)
        cv2.line(canvas, start, stop, shade, 1, cv2.LINE_AA)
    canvas += rng.normal(0, rng.uniform(0, 6), (height, width, 1)).astype(np.float32)
    return np.asarray(np.clip(canvas, 0, 255), np.uint8)
