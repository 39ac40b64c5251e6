"""From the network's outputs to detections in pixels of the original images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deixis.batch_records import Prompt
from deixis.errors import ModelError
from deixis.geometry.pixel_boxes import clip_boxes, denormalise_boxes
from deixis.results.detections import Detections


def class_scores(
    pred_logits: Float[Tensor, "batch queries length"], positive_maps: Float[Tensor, "batch classes length"]
) -> Float[Tensor, "batch queries classes"]:
    """The score of each query for each class: the mean of the sigmoids of the class's tokens.

    Rows of `positive_maps` sum to 1 over the class's tokens and are 0 elsewhere, so one matrix product gives the mean.
    Logits of padded tokens are -inf: their sigmoid is 0, and so is their weight. (With the maximum over tokens, a query
    that only shows a "dog" would get the full score for "hot dog".)

    >>> logits = torch.tensor([[[0.0, 0.0, -torch.inf]]])
    >>> class_scores(logits, torch.tensor([[[0.5, 0.5, 0.0]]]))
    tensor([[[0.5000]]])
    """
    return torch.bmm(pred_logits.float().sigmoid(), positive_maps.float().transpose(1, 2))


def postprocess(
    outputs: Mapping[str, Any],
    prompts: Sequence[Prompt],
    sizes_hw: Sequence[tuple[int, int]],
    *,
    max_detections: int = 100,
    image_ids: Sequence[int] | None = None,
) -> list[Detections]:
    """The best detections of each image, over all pairs of query and class; a query may give several classes.

    Args:
        outputs: `pred_logits` [batch, queries, length] and `pred_boxes` [batch, queries, 4] (cxcywh_norm).
        prompts: the prompt of each image.
        sizes_hw: each image's original (height, width) in pixels; boxes are scaled to it and clipped.
        max_detections: maximum number per image.
        image_ids: for the records; 0 by default.

    Returns:
        One record per image, best first.

    Raises:
        ModelError: an output is not finite, so the weights are damaged.
    """
    logits, boxes_cxcywh_norm = outputs["pred_logits"], outputs["pred_boxes"].float()
    scores = class_scores(logits, _stack_positive_maps(prompts, logits.shape[-1], logits.device))
    if not (scores.isfinite().all() and boxes_cxcywh_norm.isfinite().all()):
        raise ModelError(
            "the detector's outputs are not finite numbers; its weights are damaged, use another checkpoint"
        )
    classes = scores.shape[-1]
    asked = torch.tensor([len(prompt.names) for prompt in prompts], device=scores.device)  # [batch]
    padded = torch.arange(classes, device=scores.device) >= asked[:, None]  # [batch, classes]
    ranked = scores.masked_fill(padded[:, None], -1).flatten(1)  # [batch, queries * classes]
    best, position = ranked.topk(min(max_detections, ranked.shape[1]))  # position = query * classes + class
    # [batch, queries, 4] -> [batch, detections, 4]
    chosen = boxes_cxcywh_norm.gather(1, (position // classes)[..., None].expand(-1, -1, 4))
    # three copies to the host per batch; float64, so that boxes are scaled without further rounding
    best_np, class_np, boxes_np = (t.cpu().double().numpy() for t in (best, position % classes, chosen))
    detections = []
    for i, (prompt, size_hw) in enumerate(zip(prompts, sizes_hw, strict=True)):
        real = best_np[i] >= 0  # without classes that only other images in the batch have
        boxes_xyxy_px = clip_boxes(denormalise_boxes(boxes_np[i, real], size_hw), size_hw)
        image_id = 0 if image_ids is None else image_ids[i]
        class_ids = class_np[i, real].astype("int64")
        detections.append(Detections(boxes_xyxy_px, best_np[i, real], class_ids, prompt.names, image_id, size_hw))
    return detections


def merge_detections(parts: Sequence[Detections], max_detections: int) -> Detections:
    """Merge one image's detections from several prompts: the best of all, with class ids into all names.

    Args:
        parts: at least one, each with its own names.
        max_detections: maximum number to keep. If each part has its own best `max_detections`, the result has the best
            overall.
    """
    if len(parts) == 1:
        return parts[0]
    # where each part's names begin among all names
    first_ids = np.cumsum([0, *(len(part.names) for part in parts[:-1])])
    scores = np.concatenate([part.scores for part in parts])
    # stable: of equal scores the earlier prompt's come first, so that results do not depend on the sort
    best = np.argsort(-scores, kind="stable")[:max_detections]
    return Detections(
        np.concatenate([part.boxes_xyxy_px for part in parts])[best],
        scores[best],
        np.concatenate([part.class_ids + first for part, first in zip(parts, first_ids, strict=True)])[best],
        tuple(name for part in parts for name in part.names),
        parts[0].image_id,
        parts[0].size_hw,
    )


def _stack_positive_maps(
    prompts: Sequence[Prompt], length: int, device: torch.device
) -> Float[Tensor, "batch classes length"]:
    """The prompts' positive maps, padded with zeros to the largest number of classes and the length of the logits."""
    stacked = torch.zeros(len(prompts), max(len(prompt.names) for prompt in prompts), length)
    for i, prompt in enumerate(prompts):
        classes, tokens = prompt.positive_map.shape
        # prompts of a batch differ in classes and tokens; zeros give padded classes the score 0
        stacked[i, :classes, :tokens] = torch.from_numpy(prompt.positive_map)
    return stacked.to(device)
