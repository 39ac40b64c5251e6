"""The detector with a fixed prompt as two graphs, joined after export: pixels to levels, levels to boxes and scores.

One unpadded image of any size. There are two graphs because the levels' sizes then enter the second one as plain
variables, not as long formulas of the image's size that the exporter would have to prove equal again and again.
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


class ImageGraph(nn.Module):
    """An image to its levels, at the detector's width."""

    def __init__(self, model: GroundingDino) -> None:
        super().__init__()
        self.backbone = SwinGraph(model.config.backbone_config, model.state_dict())
        self.input_proj_vision = copy.deepcopy(model.model.input_proj_vision)
        self.eval().requires_grad_(False)

    def forward(self, pixel_values: Float[Tensor, "1 3 height width"]) -> list[Tensor]:
        """One map (1, channels, height, width) per level, finest first."""
        return project_levels(self.input_proj_vision, self.backbone(pixel_values))


class PromptGraph(nn.Module):
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
        self.rows, self.tokens = tuple(rows), input_ids.shape[1]
        with torch.no_grad():
            context = model.model.encode_text(input_ids, torch.ones_like(input_ids, dtype=torch.bool))
            context = with_sinks(context, sinks)
        for name, tensor in context._asdict().items():
            self.register_buffer(f"text_{name}", tensor.clone())
        self.register_buffer("class_tokens", class_tokens)
        self.detector = _without_backbones(model)
        self.eval().requires_grad_(False)

    def forward(
        self, levels: list[Tensor]
    ) -> tuple[Float[Tensor, "1 queries tokens"], Float[Tensor, "1 queries 4"], Float[Tensor, "1 queries classes"]]:
        """Logits per token, boxes in cxcywh_norm, and scores per class: the mean of its tokens' sigmoids."""
        context = TextContext(*(self.get_buffer(f"text_{name}") for name in TextContext._fields))
        out = self.detector.ground(self.pyramid(levels), context)
        logits = out["pred_logits"][..., : self.tokens]
        scores = logits.sigmoid() @ self.get_buffer("class_tokens").T  # [1, Q, L] @ [L, names]
        return logits, out["pred_boxes"], of_classes(scores, self.rows)

    def pyramid(self, levels: list[Tensor]) -> Pyramid:
        """The levels as `Trunk.encode_image` joins them, for an image without padding."""
        model = self.detector.model
        masks = [torch.ones_like(level[:, 0], dtype=torch.bool) for level in levels]  # [1, C, h, w] -> [1, h, w]
        positions = [
            image_positions(mask, model.d_model, model.position_temperature, dtype=torch.float32)
            + model.level_embed[index]
            for index, mask in enumerate(masks)
        ]
        return Pyramid(
            # levels of [1, C, h, w] -> [1, K, C]
            tokens=torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1),
            mask=torch.cat([mask.flatten(1) for mask in masks], dim=1),
            positions=torch.cat(positions, dim=1),
            shapes_hw=tuple((level.shape[-2], level.shape[-1]) for level in levels),
            valid_wh=torch.stack([valid_size_wh(mask, torch.float32) for mask in masks], dim=1),
            padded=False,
        )


def of_classes(scores: Float[Tensor, "1 queries names"], rows: Sequence[int]) -> Float[Tensor, "1 queries classes"]:
    """The score of each class: the highest of its wordings'.

    >>> of_classes(torch.tensor([[[0.1, 0.7, 0.2]]]), (0, 0, 1))
    tensor([[[0.7000, 0.2000]]])
    """
    if len(set(rows)) == len(rows):
        return scores
    groups = [[name for name, of in enumerate(rows) if of == row] for row in range(max(rows) + 1)]
    return torch.stack([scores[..., group].amax(-1) for group in groups], dim=-1)  # [1, Q, wordings] -> [1, Q] each


def _without_backbones(model: GroundingDino) -> GroundingDino:
    """A copy without the backbones, with deformable attention in operators that ONNX has."""
    # deepcopy takes these instead of copying the backbones
    left_out = {id(model.model.backbone): nn.Identity(), id(model.model.text_backbone): nn.Identity()}
    out: GroundingDino = copy.deepcopy(model, left_out)
    for module in out.modules():
        if isinstance(module, DeformableAttention):
            module.implementation = "reference"
    return out
