"""Comparing an exported file with the detector: what it finds, not where in its outputs.

Two proposals of nearly equal score may exchange places by rounding. Each then starts from the other's learned query, so
these two objects, and to a small part those beside them, come out differently although the file is right. So outputs
are matched one to one, and a file passes if nearly all have a match.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from deixis.batch_records import Prompt
from deixis.models.grounding_dino import GroundingDinoBundle
from deixis.models.grounding_dino.sinks import with_sinks
from deixis.models.onnx.graph import of_classes
from deixis.models.onnx.runtimes import open_export

TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.1}
"""Largest difference of a matched box (over the image), score, or logit (over its size where that is above 1)."""
SHARE = {"fp32": 0.95, "fp16": 0.9, "int8": 0.0}
"""The share of outputs that must have a match. Eight bits are judged by AP: `deixis detect eval`."""


class Outputs(NamedTuple):
    """Logits (batch, queries, tokens), boxes (batch, queries, 4) and scores (batch, queries, names)."""

    logits: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


class Difference(NamedTuple):
    """The difference between an exported file and the detector on noise images.

    Attributes:
        size_hw: of the images.
        logits, boxes, scores: largest absolute differences of the outputs whose boxes match.
        matched: the share of all outputs that match in everything.
    """

    size_hw: tuple[int, int]
    logits: float
    boxes: float
    scores: float
    matched: float


def compare_export(
    path: str | Path,
    bundle: GroundingDinoBundle,
    prompt: Prompt,
    *,
    sizes_hw: Sequence[tuple[int, int]],
    precision: str = "fp32",
    batch: int = 2,
    seed: int = 0,
    rows: Sequence[int] = (),
) -> list[Difference]:
    """Compare the file in its runtime with the detector itself, on batches of noise images.

    Args:
        rows: the class of each name of the prompt, where wordings are built in; each its own if not given.

    Raises:
        ModelError: the runtime is missing or cannot load the file.
    """
    opened = open_export(path)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for height, width in sizes_hw:
        pixels = torch.randn(batch, 3, height, width, generator=generator)
        arrays = {"pixel_values": pixels.numpy()}
        if "input_ids" in opened.inputs:
            arrays |= {"input_ids": np.array([prompt.input_ids]), "class_tokens": prompt.positive_map}
        logits, boxes, scores = opened.run(arrays)
        theirs, ours = Outputs(logits, boxes, scores), _reference(bundle, prompt, pixels, rows=rows)
        found.append(matched_difference(theirs, ours, (height, width), tolerance=TOLERANCE[precision]))
    return found


def matched_difference(found: Outputs, wanted: Outputs, size_hw: tuple[int, int], *, tolerance: float) -> Difference:
    """The outputs of both sides, matched image by image.

    >>> ours = Outputs(np.zeros((1, 2, 3)), np.array([[[0.5] * 4, [0.2] * 4]]), np.array([[[0.9], [0.8]]]))
    >>> swapped = Outputs(*(output[:, ::-1] for output in ours))
    >>> matched_difference(swapped, ours, (8, 8), tolerance=1e-3).matched
    1.0
    """
    # per image, and of its matched pairs: differences of logits, boxes and scores, and our logits
    rows = []
    for theirs, ours in zip(zip(*found, strict=True), zip(*wanted, strict=True), strict=True):
        mine, other = Outputs(*ours), Outputs(*theirs)
        cost = np.maximum(_apart(mine.boxes, other.boxes), _apart(mine.scores, other.scores))  # [Q, Q]
        # one to one, with as many pairs within the tolerance as possible
        ids, partners = linear_sum_assignment(np.minimum(cost / tolerance, 2.0))
        rows.append(
            [np.abs(a[ids] - b[partners]) for a, b in zip(mine, other, strict=True)] + [np.abs(mine.logits[ids])]
        )
    logits, boxes, scores, size = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    near = (boxes <= tolerance).all(1)  # false for NaN
    # logits can reach hundreds: above 1 they are compared by their size
    good = near & (scores <= tolerance).all(1) & (logits <= tolerance * np.maximum(size, 1)).all(1)
    of_logits, of_boxes, of_scores = (float(each[near].max(initial=0.0)) for each in (logits, boxes, scores))
    return Difference(size_hw, of_logits, of_boxes, of_scores, float(good.mean()))


def passes(found: Sequence[Difference], precision: str) -> bool:
    """Whether nearly all outputs of a file have a match."""
    return all(each.matched >= SHARE[precision] for each in found)


def _apart(mine: Float[np.ndarray, "n values"], theirs: Float[np.ndarray, "m values"]) -> Float[np.ndarray, "n m"]:
    """The largest difference of any value, for each pair of rows; large where one is not a number."""
    out = np.zeros((len(mine), len(theirs)))
    for column in range(mine.shape[1]):  # no [n, m, values] at once
        out = np.maximum(out, np.abs(mine[:, None, column] - theirs[None, :, column]))
    # `linear_sum_assignment` raises an error for NaN
    return np.nan_to_num(out, nan=1e9, posinf=1e9)


def _reference(bundle: GroundingDinoBundle, prompt: Prompt, pixels: Tensor, *, rows: Sequence[int]) -> Outputs:
    """The detector's own outputs, from the code that users run."""
    model, batch = bundle.model.eval(), pixels.shape[0]
    input_ids = torch.tensor([prompt.input_ids]).expand(batch, -1)
    pixel_mask = torch.ones(batch, *pixels.shape[-2:], dtype=torch.bool)
    with torch.no_grad():
        context = with_sinks(model.encode_text(input_ids, torch.ones_like(input_ids, dtype=torch.bool)), bundle.sinks)
        out = model.ground(model.encode_image(pixels, pixel_mask), context)
    logits = out["pred_logits"][..., : input_ids.shape[1]]
    scores = of_classes(logits.sigmoid() @ torch.from_numpy(prompt.positive_map).T, rows)
    return Outputs(logits.numpy(), out["pred_boxes"].numpy(), scores.numpy())
