"""Frozen linear layers in 4 or 8 bits (bitsandbytes), under adapters that stay as they are (QLoRA, arXiv 2305.14314).

4 bits are NF4 with quantised scales; 8 bits are a scale per row, and products take activations in 8 bits too (LLM.int8,
arXiv 2208.07339). A layer is quantised when its model is moved to a device, the CPU included.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from torch import nn

OUTLIERS = 6.0
"""Of 8 bits: columns with an activation above this are multiplied in 16 bits; LLM.int8's own value."""


def quantize(model: nn.Module, pattern: str, bits: Literal["4bit", "8bit"]) -> None:
    """Replace the linear layers whose full names match a regular expression, in place; their weights are frozen."""
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear and re.fullmatch(pattern, name):
            _replace(model, name, _quantized(layer, bits))


def dequantize(model: nn.Module) -> None:
    """Put ordinary layers in the place of quantised ones, with the rounded weights that these compute with."""
    for name, layer in list(model.named_modules()):
        if not hasattr(layer, "full_dtype"):
            continue
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(_weight(layer).to(layer.full_dtype), requires_grad=False)
        plain.bias = layer.bias
        _replace(model, name, plain.train(layer.training))


def _quantized(layer: nn.Linear, bits: str) -> Any:
    import bitsandbytes as bnb

    size = (layer.in_features, layer.out_features, layer.bias is not None)
    made: Any
    if bits == "4bit":
        made = bnb.nn.Linear4bit(*size, quant_type="nf4", device="meta")
        made.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
        # On such CPUs evaluation would repack the weights, in place.
        made.support_avx512bf16_for_cpu = False
    else:
        made = bnb.nn.Linear8bitLt(*size, has_fp16_weights=False, threshold=OUTLIERS, device="meta")
        made.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False)
    made.bias, made.full_dtype = layer.bias, layer.weight.dtype
    return made.train(layer.training)


def _weight(layer: Any) -> Any:
    """The weight that a quantised layer computes with, [out, in]."""
    import bitsandbytes as bnb

    weight = layer.weight.data
    if weight.is_floating_point():  # the model was never moved to a device
        return weight
    if isinstance(layer, bnb.nn.Linear4bit):
        return bnb.functional.dequantize_4bit(weight, layer.weight.quant_state)
    # the first forward pass moves the scales, one per row
    scales = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB
    return weight.float() * (scales.to(weight.device).float() / 127)[:, None]


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
