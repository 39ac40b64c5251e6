"""Short stretches of clips with the masks of a few objects, to train SAM 2's memory on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from pycocotools import mask as coco_mask

from deixis.data.pixels.tiles import squashed, squashed_mask
from deixis.errors import DataError
from deixis.video_records import Clip, ClipDataset

_SECOND_PROMPT = 0.25  # share of windows in which a later frame is given, too
_TRIES = 100


@dataclass(frozen=True)
class Window:
    """Some frames on SAM 2's square.

    Attributes:
        pixels: RGB.
        masks: all false where an object is not to be seen.
        prompt_frames: whose masks are given; every object is to be seen in one of them.
        source: for messages.
    """

    pixels: UInt8[np.ndarray, "frames 3 side side"]
    masks: Bool[np.ndarray, "frames objects side side"]
    prompt_frames: tuple[int, ...]
    source: str = ""


def draw_window(
    dataset: ClipDataset, side: int, frames: int, max_objects: int, max_stride: int, rng: np.random.Generator
) -> Window:
    """A window of a clip drawn at random: forwards or backwards in time, labels up to `max_stride` apart.

    Args:
        side: of SAM 2's square, in pixels.
        frames: labelled frames in the window; fewer where a clip has no more.

    Raises:
        DataError: a frame cannot be decoded, or no object is seen in a hundred clips.
    """
    for _ in range(_TRIES):
        clip = dataset[int(rng.integers(len(dataset)))]
        if len(clip.labelled) < 2:
            continue
        count = min(frames, len(clip.labelled))
        stride = int(rng.integers(1, 1 + min(max_stride, (len(clip.labelled) - 1) // (count - 1))))
        start = int(rng.integers(len(clip.labelled) - stride * (count - 1)))
        labels = [start + stride * step for step in range(count)]
        if rng.random() < 0.5:
            labels.reverse()
        seen = [i for i, masklet in enumerate(clip.masklets) if masklet.masks_rle[labels[0]] is not None]
        chosen = [seen[i] for i in rng.permutation(len(seen))[:max_objects]]
        if chosen:
            prompts = (0, int(rng.integers(1, count))) if rng.random() < _SECOND_PROMPT and count > 2 else (0,)
            return _window(clip, labels, chosen, prompts, side)
    raise DataError(f"{dataset.name}: {_TRIES} clips were drawn and none shows an object; give clips with masks")


def _window(clip: Clip, labels: list[int], chosen: list[int], prompts: tuple[int, ...], side: int) -> Window:
    numbers = [clip.labelled[label] for label in labels]
    ascending = dict(zip(sorted(numbers), clip.frames.read(sorted(numbers)), strict=True))
    pixels = np.stack([squashed(ascending[number], (side, side)).transpose(2, 0, 1) for number in numbers])
    masks = np.zeros((len(labels), len(chosen), side, side), bool)
    for frame, label in enumerate(labels):
        for row, masklet in enumerate(chosen):
            rle = clip.masklets[masklet].masks_rle[label]
            if rle is not None:
                masks[frame, row] = squashed_mask(np.asarray(coco_mask.decode(rle), dtype=bool), side)
    return Window(pixels, masks, prompts, clip.source)
