"""A linear layer's weight and bias including its adapters, for code that merges several layers into one product."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


def weight_and_bias(layer: Any) -> tuple[Float[Tensor, "d_out d_in"], Float[Tensor, " d_out"]] | None:
    """Weight and bias such that the layer's output is `x W^T + b`, in the graph of all its parameters.

    None if the layer has another form: not linear, no bias, an adapter that is not plain LoRA (arXiv 2106.09685), or
    one with input dropout in training.
    """
    if type(layer) is nn.Linear:
        return None if layer.bias is None else (layer.weight, layer.bias)
    base = getattr(layer, "base_layer", None)
    if type(base) is not nn.Linear or base.bias is None or not hasattr(layer, "lora_A"):
        return None
    weight = base.weight
    if not (layer.disable_adapters or layer.merged):
        for name in layer.active_adapters:
            if name in layer.lora_variant or (layer.training and getattr(layer.lora_dropout[name], "p", 0) > 0):
                return None
            if name in layer.lora_A:
                # W + alpha / rank * B A; [d_out, r] @ [r, d_in]
                weight = weight + layer.scaling[name] * (layer.lora_B[name].weight @ layer.lora_A[name].weight)
    return weight, base.bias
