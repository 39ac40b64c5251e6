"""The size an image is resized to is the one transformers' processors choose."""

from __future__ import annotations

import random

from transformers.image_transforms import get_size_with_aspect_ratio

from deixis.data.detect.transforms import resized_hw


def test_resized_sizes_equal_transformers() -> None:
    numbers = random.Random(0)
    for _ in range(5000):
        size_hw = (numbers.randint(20, 3000), numbers.randint(20, 3000))
        short_px, long_px = numbers.choice([(128, 160), (480, 640), (640, 900), (800, 1333), (1333, 800)])
        assert resized_hw(size_hw, short_px, long_px) == get_size_with_aspect_ratio(size_hw, short_px, long_px)
