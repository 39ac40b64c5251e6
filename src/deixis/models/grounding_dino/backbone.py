"""The image backbone: transformers' Swin, or another of its backbones without batch norm, under its own names."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoBackbone
from transformers.modeling_layers import GradientCheckpointingLayer

from deixis.errors import ModelError


class UnusedNorm(nn.Module):
    """Weights that a checkpoint has but no output depends on: kept for saving, never trained or applied."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.register_buffer("weight", norm.weight.detach().clone())
        self.register_buffer("bias", norm.bias.detach().clone())

    def forward(self, hidden: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """The input itself."""
        return hidden


class Backbone(nn.Module):
    """Feature maps of several resolutions.

    Padding is not masked here: windows across an image's border and the group norms after the backbone include it, as
    in every implementation that released weights were trained with.
    """

    def __init__(self, backbone_config: Any) -> None:
        super().__init__()
        model = AutoBackbone.from_config(backbone_config)
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
            raise ModelError(
                f"the backbone '{backbone_config.model_type}' has batch norm, which is not supported; use Swin"
            )
        if hasattr(model, "swin"):
            # as a parameter it would get no gradient, which a run reports as an error
            model.swin.layernorm = UnusedNorm(model.swin.layernorm)
        self.channels: list[int] = list(model.channels)
        self.conv_encoder = nn.ModuleDict({"model": model})

    def forward(self, pixel_values: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """One map (batch, channels, height, width) per level, finest first."""
        # [B, channels of its stage, h, w] each, at the strides of the configuration's `out_features`
        features = self.conv_encoder["model"](pixel_values).feature_maps
        return list(features)

    def checkpoint_gradients(self, enabled: bool) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        layers = [module for module in self.modules() if isinstance(module, GradientCheckpointingLayer)]
        for layer in layers:
            inner = any(other is not layer and other in layers for other in layer.modules())
            layer.gradient_checkpointing = enabled and not inner  # of a stage and its blocks only the blocks
            # transformers' layers call this function, which is unset until its own models enable checkpointing
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def input_projections(channels: list[int], levels: int, d_model: int) -> nn.ModuleList:
    """Projections to `d_model` channels: 1x1 for each backbone map, then 3x3 with stride 2 per extra, coarser level.

    Raises:
        ModelError: the backbone gives more maps than there are levels.
    """
    if len(channels) > levels:
        raise ModelError(f"the backbone gives {len(channels)} feature maps, num_feature_levels is only {levels}")
    convolutions = [nn.Conv2d(count, d_model, kernel_size=1) for count in channels]
    for level in range(len(channels), levels):
        d_in = channels[-1] if level == len(channels) else d_model
        convolutions.append(nn.Conv2d(d_in, d_model, kernel_size=3, stride=2, padding=1))
    # 32 groups as in the released weights: `check_config` allows only widths that they divide
    return nn.ModuleList(nn.Sequential(conv, nn.GroupNorm(32, d_model)) for conv in convolutions)


def project_levels(projections: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
    """The maps with `d_model` channels. The first extra level is made from the backbone's last map, the next ones from
    the level before."""
    # [B, channels of the map, h, w] -> [B, d_model, h, w]; `zip` leaves the extra levels' projections over
    levels = [project(feature) for project, feature in zip(projections, maps, strict=False)]
    source = maps[-1]
    for project in list(projections)[len(maps) :]:
        source = project(source)  # [B, ..., h, w] -> [B, d_model, ⌈h / 2⌉, ⌈w / 2⌉]
        levels.append(source)
    return levels


def eval_if_frozen(module: nn.Module, training: bool) -> bool:
    """Whether a part has no trainable parameter; it is then put in evaluation mode (no dropout, no drop path).

    Args:
        training: the whole model's mode, which a trainable part follows.
    """
    frozen = not any(parameter.requires_grad for parameter in module.parameters())
    mode = training and not frozen
    # `train` visits every submodule, and this runs in every step: only where something changes
    if module.training != mode:
        module.train(mode)
    return frozen


def no_grad_if(frozen: bool) -> torch.set_grad_enabled:
    """A context that disables gradients for a frozen part and changes nothing for others."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and not frozen)
