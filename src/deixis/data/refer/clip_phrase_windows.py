"""Stretches of clips with what a few of their sentences mean, to train a memory that keeps phrases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from pycocotools import mask as coco_mask

from deixis.data.pixels.tiles import squashed, squashed_mask
from deixis.errors import DataError
from deixis.video_records import Clip, ClipDataset

_TRIES = 100


@dataclass(frozen=True)
class PhraseWindow:
    """Some frames of a clip and some of its sentences.

    Attributes:
        clip: position in the data set.
        texts: one a row of `masks`.
        asked: labelled frames spread over the clip, in which the sentences are looked for.
        run: labelled frames that are followed, evenly apart and in order, forwards or backwards.
        numbers: how far each frame of `asked`, then of `run`, lies from the first of the run, in steps of the run.
        pixels: of `asked` and then `run`, as they are.
        masks: the truth in the same frames on SAM 2's square; all false where nothing is to be seen.
    """

    clip: int
    texts: tuple[str, ...]
    asked: tuple[int, ...]
    run: tuple[int, ...]
    numbers: tuple[int, ...]
    pixels: tuple[UInt8[np.ndarray, "h w 3"], ...]
    masks: Bool[np.ndarray, "frames phrases side side"]
    source: str = ""

    def squares(self, side: int) -> UInt8[np.ndarray, "frames 3 side side"]:
        """The pixels on SAM 2's square."""
        return np.stack([squashed(pixels, (side, side)).transpose(2, 0, 1) for pixels in self.pixels])


def draw_phrase_window(
    dataset: ClipDataset,
    side: int,
    frames: int,
    max_phrases: int,
    max_stride: int,
    asked: int,
    rng: np.random.Generator,
) -> PhraseWindow:
    """A window of a clip drawn at random.

    Args:
        frames: in the run; fewer where a clip has no more.
        asked: frames from all over the clip, as many as when phrases are followed; a random part of them is taken.

    Raises:
        DataError: a frame cannot be decoded, or a hundred clips have no sentences.
    """
    for _ in range(_TRIES):
        position = int(rng.integers(len(dataset)))
        clip = dataset[position]
        sentences = [(i, text) for i, one in enumerate(clip.expressions) for text in one.texts]
        if len(clip.labelled) < 2 or not sentences:
            continue
        chosen = [sentences[i] for i in sorted(rng.permutation(len(sentences))[:max_phrases].tolist())]
        looked_at, run = _labels(len(clip.labelled), frames, max_stride, asked, rng)
        return _window(clip, position, chosen, looked_at, run, side)
    raise DataError(f"{dataset.name}: {_TRIES} clips were drawn and none has a sentence; use --given masks")


def _labels(
    total: int, frames: int, max_stride: int, asked: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """(asked, run) of a window of so many labels."""
    spread = sorted({int(label) for label in np.linspace(0, total - 1, min(asked, total)).round()})
    taken = sorted(rng.permutation(len(spread))[: int(rng.integers(1, len(spread) + 1))].tolist())
    count = min(frames, total)
    stride = int(rng.integers(1, 1 + min(max_stride, max(1, (total - 1) // max(1, count - 1)))))
    start = int(rng.integers(total - stride * (count - 1)))
    run = [start + stride * step for step in range(count)]
    if rng.random() < 0.5:
        run.reverse()
    return [spread[i] for i in taken], run


def _window(
    clip: Clip, position: int, chosen: list[tuple[int, str]], asked: list[int], run: list[int], side: int
) -> PhraseWindow:
    labels = [*asked, *run]
    numbers = sorted({clip.labelled[label] for label in labels})
    read = dict(zip(numbers, clip.frames.read(numbers), strict=True))
    masks = np.zeros((len(labels), len(chosen), side, side), bool)
    for frame, label in enumerate(labels):
        for row, (expression, _) in enumerate(chosen):
            found = clip.masks_at(clip.expressions[expression], label)
            if found:
                merged = coco_mask.decode(coco_mask.merge(list(found)))
                masks[frame, row] = squashed_mask(np.asarray(merged, dtype=bool), side)
    step = run[1] - run[0] if len(run) > 1 else 1
    return PhraseWindow(
        position,
        tuple(text for _, text in chosen),
        tuple(asked),
        tuple(run),
        tuple(round((label - run[0]) / step) for label in labels),
        tuple(read[clip.labelled[label]] for label in labels),
        masks,
        clip.source,
    )
