"""Random and awkward detector outputs with their targets, for tests of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from deixis.batch_records import Target

Outputs = dict[str, Any]
SPECIAL_TOKENS = 2  # [CLS] in front, [SEP] behind


def positive_map(rng: np.random.Generator, classes: int, max_tokens: int = 3) -> Tensor:
    """Class to token, each class on 1 to `max_tokens` tokens of its own, each followed by a delimiter."""
    spans = rng.integers(1, max_tokens + 1, classes)
    rows = torch.zeros(classes, int(spans.sum()) + classes + SPECIAL_TOKENS)
    start = 1
    for row, span in zip(rows, spans, strict=True):
        row[start : start + span] = 1 / float(span)
        start += int(span) + 1
    return rows


def target(boxes: Any, class_ids: Any, rows: Tensor, image_id: int = 0) -> Target:
    """A target from lists."""
    return Target(
        boxes_cxcywh_norm=torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        class_ids=torch.as_tensor(class_ids, dtype=torch.long).reshape(-1),
        positive_map=rows,
        size_hw=(30, 40),
        original_size_hw=(30, 40),
        image_id=image_id,
        source=f"labels.json: image {image_id}",
    )


def random_boxes(rng: np.random.Generator, *shape: int) -> Tensor:
    """Boxes inside the image, cxcywh_norm."""
    sides = rng.uniform(0.02, 0.6, (*shape, 2))
    centres = sides / 2 + rng.uniform(0, 1, (*shape, 2)) * (1 - sides)
    return torch.tensor(np.concatenate([centres, sides], -1), dtype=torch.float32)


def random_targets(rng: np.random.Generator, counts: tuple[int, ...], max_classes: int = 4) -> list[Target]:
    """One target an image, each with a prompt of its own, as wide as the widest of them."""
    maps = [positive_map(rng, int(rng.integers(1, max_classes + 1))) for _ in counts]
    return [
        target(random_boxes(rng, count), rng.integers(0, len(rows), count), rows, image)
        for image, (count, rows) in enumerate(zip(counts, maps, strict=True))
    ]


def outputs_for(
    rng: np.random.Generator,
    targets: list[Target],
    queries: int = 7,
    decoder_layers: int = 6,
    text_len: int = 40,
    scale: float = 2.0,
    dtype: torch.dtype = torch.float32,
) -> Outputs:
    """Outputs of a detector that saw these prompts: -inf on padded tokens, every tensor a leaf with a gradient."""
    mask = torch.zeros(len(targets), text_len, dtype=torch.bool)
    for row, one in zip(mask, targets, strict=True):
        row[: one.positive_map.shape[1]] = True

    def layer() -> Outputs:
        logits = torch.tensor(rng.normal(0, scale, (len(targets), queries, text_len)))
        return {
            "pred_logits": logits.masked_fill(~mask[:, None], -torch.inf).to(dtype).requires_grad_(),
            "pred_boxes": random_boxes(rng, len(targets), queries).to(dtype).requires_grad_(),
        }

    aux = [layer() for _ in range(decoder_layers - 1)]
    return {**layer(), "text_token_mask": mask, "aux_outputs": aux, "enc_outputs": layer()}


def random_batch(seed: int, counts: tuple[int, ...] = (3, 0, 5), **settings: Any) -> tuple[Outputs, list[Target]]:
    """Targets and outputs for them, from a seed."""
    rng = np.random.default_rng(seed)
    targets = random_targets(rng, counts)
    return outputs_for(rng, targets, **settings), targets


def layers_of(outputs: Outputs) -> list[Outputs]:
    """Every supervised layer: the last, those before it, the encoder."""
    return [outputs, *outputs["aux_outputs"], outputs["enc_outputs"]]


def leaves_of(outputs: Outputs) -> list[Tensor]:
    """Every tensor that should receive a gradient."""
    return [layer[name] for layer in layers_of(outputs) for name in ("pred_logits", "pred_boxes")]


def gradients(outputs: Outputs, total: Tensor) -> list[Tensor]:
    """The gradient of a loss at every leaf; None becomes an empty tensor."""
    found = torch.autograd.grad(total, leaves_of(outputs), allow_unused=True)
    return [torch.zeros(0) if gradient is None else gradient for gradient in found]


def awkward_batch(seed: int) -> tuple[Outputs, list[Target]]:
    """A batch with some of everything that breaks losses, chosen by the seed."""
    rng = np.random.default_rng(seed)
    counts = tuple(int(count) for count in rng.choice([0, 0, 1, 2, 5, 9], rng.integers(1, 4)))
    targets = []
    for image, count in enumerate(counts):
        rows = positive_map(rng, int(rng.choice([1, 2, 5])), int(rng.choice([1, 3])))
        boxes = _awkward_boxes(rng, count)
        targets.append(target(boxes, rng.integers(0, len(rows), count), rows, image))
    outputs = outputs_for(
        rng,
        targets,
        queries=int(rng.choice([1, 2, 6])),
        decoder_layers=int(rng.choice([1, 3])),
        text_len=32,
        scale=float(rng.choice([0.0, 1.0, 50.0, 1e4])),
        dtype=torch.bfloat16 if rng.random() < 0.3 else torch.float32,
    )
    for layer in layers_of(outputs):
        with torch.no_grad():
            if rng.random() < 0.3:
                layer["pred_logits"].mul_(torch.tensor(float(rng.choice([1e4, 1e-4]))))
                layer["pred_logits"].clamp_(max=1e4)
            if rng.random() < 0.5:
                layer["pred_boxes"].copy_(_awkward_boxes(rng, *layer["pred_boxes"].shape[:2]))
                if counts[0] and rng.random() < 0.5:
                    layer["pred_boxes"][0] = targets[0].boxes_cxcywh_norm[0]  # exactly right, and repeated
    return outputs, targets


def _awkward_boxes(rng: np.random.Generator, *shape: int) -> Tensor:
    """Ordinary, flat, empty, outside, tiny and repeated boxes."""
    boxes = random_boxes(rng, *shape)
    kind = torch.tensor(rng.integers(0, 7, shape))
    boxes[..., 2][(kind == 1) | (kind == 3)] = 0.0
    boxes[..., 3][(kind == 2) | (kind == 3)] = 0.0
    boxes[kind == 4] += torch.tensor([3.0, -3.0, 0.0, 0.0])
    boxes[kind == 5] *= torch.tensor([1.0, 1.0, 1e-7, 1e-7])
    boxes[kind == 6] = torch.tensor([0.5, 0.5, 0.25, 1.0])
    return boxes
