"""The detector as two graphs, joined after export: pixels to levels; levels and names to boxes and scores.

Unpadded images of any size, those of a batch of one size. There are two graphs because the levels' sizes then enter the
second one as plain variables, not as long formulas of the image's size that the exporter would have to prove equal
again and again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deixis.models.grounding_dino import GroundingDino
from deixis.models.grounding_dino.backbone import project_levels
from deixis.models.grounding_dino.encoder import Pyramid, TextContext
from deixis.models.grounding_dino.layers.attention import DeformableAttention
from deixis.models.grounding_dino.layers.positions import image_positions, valid_size_wh
from deixis.models.grounding_dino.sinks import with_sinks
from deixis.models.onnx.swin import SwinGraph

Found = tuple[Tensor, Tensor, Tensor]
"""Logits (batch, queries, tokens), boxes (batch, queries, 4) in cxcywh_norm, and scores (batch, queries, names): of
each name the mean of its tokens' sigmoids."""


class ImageGraph(nn.Module):
    """Images to their levels, at the detector's width."""

    def __init__(self, model: GroundingDino) -> None:
        super().__init__()
        self.backbone = SwinGraph(model.config.backbone_config, model.state_dict())
        self.input_proj_vision = copy.deepcopy(model.model.input_proj_vision)
        self.eval().requires_grad_(False)

    def forward(self, pixel_values: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """One map (batch, channels, height, width) per level, finest first."""
        return project_levels(self.input_proj_vision, self.backbone(pixel_values))


class FixedNames(nn.Module):
    """Levels to boxes and scores for one prompt, which is encoded once, in the constructor.

    Args:
        model: the detector; it is not changed.
        input_ids: the prompt, from [CLS] to [SEP].
        class_tokens: the weight of each token in each name; rows sum to 1.
        rows: the class of each name; each its own if not given.
        sinks: behind the prompt.
    """

    def __init__(
        self,
        model: GroundingDino,
        input_ids: Int[Tensor, "1 tokens"],
        class_tokens: Float[Tensor, "names tokens"],
        *,
        rows: Sequence[int] = (),
        sinks: Float[Tensor, "sinks channels"] | None = None,
    ) -> None:
        super().__init__()
        self.rows = tuple(rows)
        with torch.no_grad():
            context = model.model.encode_text(input_ids, torch.ones_like(input_ids, dtype=torch.bool))
            context = with_sinks(context, sinks)
        # buffers, as the graph's constants
        for name, tensor in context._asdict().items():
            self.register_buffer(f"text_{name}", tensor.clone())
        self.register_buffer("class_tokens", class_tokens)
        self.detector = _prepared(model, model.model.backbone, model.model.text_backbone)
        self.eval().requires_grad_(False)

    def forward(self, levels: list[Tensor]) -> Found:
        """What is found; see `Found`."""
        context = TextContext(*(self.get_buffer(f"text_{name}") for name in TextContext._fields))
        logits, boxes, scores = ground(self.detector, levels, context, class_tokens=self.get_buffer("class_tokens"))
        return logits, boxes, of_classes(scores, self.rows)


class AnyNames(nn.Module):
    """The same for a prompt that is an input, one for all images of the batch."""

    def __init__(self, model: GroundingDino, sinks: Float[Tensor, "sinks channels"] | None = None) -> None:
        super().__init__()
        self.sinks = None if sinks is None else sinks.detach().clone()
        self.detector = _prepared(model, model.model.backbone)
        self.detector.model.prompt_cache.capacity = 0  # a graph remembers nothing
        self.eval().requires_grad_(False)

    def forward(
        self, levels: list[Tensor], input_ids: Int[Tensor, "1 tokens"], class_tokens: Float[Tensor, "names tokens"]
    ) -> Found:
        """What is found; see `Found`. `class_tokens`: the weight of each token in each name, rows sum to 1."""
        context = self.detector.encode_text(input_ids, torch.ones_like(input_ids, dtype=torch.bool))
        context = with_sinks(context, self.sinks)
        return ground(self.detector, levels, context, class_tokens=class_tokens)


def of_classes(
    scores: Float[Tensor, "batch queries names"], rows: Sequence[int]
) -> Float[Tensor, "batch queries classes"]:
    """The score of each class: the highest of its wordings'.

    >>> of_classes(torch.tensor([[[0.1, 0.7, 0.2]]]), (0, 0, 1))
    tensor([[[0.7000, 0.2000]]])
    """
    if len(set(rows)) == len(rows):
        return scores
    groups = [[name for name, of in enumerate(rows) if of == row] for row in range(max(rows) + 1)]
    return torch.stack([scores[..., group].amax(-1) for group in groups], dim=-1)


def ground(
    detector: GroundingDino, levels: list[Tensor], context: TextContext, *, class_tokens: Float[Tensor, "names tokens"]
) -> Found:
    """What is found in the images for one prompt."""
    batch = levels[0].shape[0]
    # [1, ...] -> [B, ...]: one prompt for all images
    shared = TextContext(*(part.expand(batch, *part.shape[1:]) for part in context))
    out = detector.ground(pyramid_of(detector, levels), shared)
    logits = out["pred_logits"][..., : class_tokens.shape[1]]  # without the sinks
    return logits, out["pred_boxes"], logits.sigmoid() @ class_tokens.T  # [B, Q, L] @ [L, names]


def pyramid_of(detector: GroundingDino, levels: list[Tensor]) -> Pyramid:
    """The levels as `Trunk.encode_image` joins them, for images without padding."""
    model = detector.model
    masks = [torch.ones_like(level[:, 0], dtype=torch.bool) for level in levels]
    positions = [
        image_positions(mask, model.d_model, model.position_temperature, dtype=torch.float32) + model.level_embed[index]
        for index, mask in enumerate(masks)
    ]
    return Pyramid(
        # levels of [B, C, h, w] -> [B, K, C]
        tokens=torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1),
        mask=torch.cat([mask.flatten(1) for mask in masks], dim=1),
        positions=torch.cat(positions, dim=1),
        shapes_hw=tuple((level.shape[-2], level.shape[-1]) for level in levels),
        valid_wh=torch.stack([valid_size_wh(mask, torch.float32) for mask in masks], dim=1),
        padded=False,
    )


def _prepared(model: GroundingDino, *left_out: nn.Module) -> GroundingDino:
    """A copy without some parts, with deformable attention in operators that ONNX has."""
    # `deepcopy` takes a part that its memo holds for copied: it puts the empty module there
    out: GroundingDino = copy.deepcopy(model, {id(part): nn.Identity() for part in left_out})
    for module in out.modules():
        if isinstance(module, DeformableAttention):
            module.implementation = "reference"
    return out
