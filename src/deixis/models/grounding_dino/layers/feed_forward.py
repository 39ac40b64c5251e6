"""The two linear layers at the end of every transformer layer, computed for a chunk of tokens at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, relu_

CHUNK_NUMBERS = 2**20
"""Hidden activations per chunk on a CPU. 4 MB of them stay in the cache. Those of all tokens of an image would not, and
would need new memory pages, which the system clears one by one: a third of the layer's time."""


def feed_forward(
    tokens: Float[Tensor, "batch tokens channels"],
    fc1: nn.Module,
    fc2: nn.Module,
    *,
    activation: Callable[[Tensor], Tensor],
    activation_dropout: float = 0.0,
) -> Float[Tensor, "batch tokens d_out"]:
    """`fc2(dropout(activation(fc1(tokens))))`.

    Args:
        activation_dropout: dropout probability; 0 outside training.
    """
    relu = isinstance(activation, nn.ReLU)
    # in place: nothing needs the numbers before a ReLU, not even its gradient
    activate = relu_ if relu else activation
    if activation_dropout or _computed_elsewhere(tokens):
        hidden = activate(fc1(tokens))
        flat = fc2(dropout(hidden, activation_dropout) if activation_dropout else hidden)
    elif not _differentiated(tokens, fc1, fc2):
        # without a graph, a chunk's hidden activations are gone before the next one's are made
        chunks = torch.split(tokens.flatten(0, 1), _rows(fc1.out_features))  # [B, T, C] -> [B * T, C] in chunks
        flat = torch.cat([fc2(activate(fc1(chunk))) for chunk in chunks])
    elif relu and type(fc1) is nn.Linear and type(fc2) is nn.Linear:
        weights = (fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        flat = ReluFeedForward.apply(tokens.flatten(0, 1), *weights)  # type: ignore[no-untyped-call]
    else:
        # adapters, or another activation: left to autograd, which keeps all hidden activations anyway
        flat = fc2(activate(fc1(tokens)))
    # [B * T, D] -> [B, T, D]
    out: Tensor = flat.view(*tokens.shape[:-1], flat.shape[-1])
    return out


def _differentiated(tokens: Tensor, *layers: nn.Module) -> bool:
    """Whether a gradient may be needed for the tokens or the layers."""
    needed = (tokens, *(parameter for layer in layers for parameter in layer.parameters()))
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in needed)


def _computed_elsewhere(tokens: Tensor) -> bool:
    """Whether this runs on an accelerator, in mixed precision or compiled, where chunks do not help."""
    return tokens.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()


def _rows(inner: Any) -> int:
    return max(1, CHUNK_NUMBERS // int(inner))


class ReluFeedForward(torch.autograd.Function):
    """`relu(x W1^T + b1) W2^T + b2`, for a chunk of tokens at a time.

    Shapes: x [N, C], W1 [H, C], W2 [D, H]; the result is [N, D].
    """

    @staticmethod
    def forward(ctx: Any, x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        """Keeps the hidden activations for the backward pass."""
        out, kept, rows = x.new_empty(x.shape[0], w2.shape[0]), [], _rows(w1.shape[0])
        for start in range(0, x.shape[0], rows):
            kept.append(linear(x[start : start + rows], w1, b1).relu_())
            torch.addmm(b2, kept[-1], w2.t(), out=out[start : start + rows])
        # x and the activations, as plain layers would save them; nothing before the ReLU is needed
        ctx.save_for_backward(x, w1, w2, *kept)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Any) -> Any:
        """Gradients of all five inputs, or None where not needed."""
        x, w1, w2, *kept = ctx.saved_tensors
        wants_x, wants_w1, wants_b1, wants_w2, wants_b2 = ctx.needs_input_grad
        grad_x = torch.empty_like(x) if wants_x else None
        grad_w1 = torch.zeros_like(w1) if wants_w1 else None
        grad_b1 = w1.new_zeros(w1.shape[0]) if wants_b1 else None
        grad_w2 = torch.zeros_like(w2) if wants_w2 else None
        # the chunks of the forward pass; gradients of the weights are summed over them in place
        for start, hidden in zip(range(0, x.shape[0], _rows(w1.shape[0])), kept, strict=True):
            rows = slice(start, start + len(hidden))
            if grad_w2 is not None:
                grad_w2.addmm_(grad[rows].t(), hidden)  # [D, n] @ [n, H]
            if not (wants_x or wants_w1 or wants_b1):
                continue
            inner = grad[rows] @ w2  # [n, D] @ [D, H], then 0 where ReLU was 0
            torch.ops.aten.threshold_backward.grad_input(inner, hidden, 0, grad_input=inner)
            if grad_w1 is not None:
                grad_w1.addmm_(inner.t(), x[rows])  # [H, n] @ [n, C]
            if grad_b1 is not None:
                grad_b1 += inner.sum(0)
            if grad_x is not None:
                torch.mm(inner, w1, out=grad_x[rows])  # [n, H] @ [H, C]
        return grad_x, grad_w1, grad_b1, grad_w2, grad.sum(0) if wants_b2 else None


def add_dropped(
    residual: Float[Tensor, "*axes"], branch: Float[Tensor, "*axes"], probability: float, *, training: bool
) -> Float[Tensor, "*axes"]:
    """`residual + dropout(branch)`, with PyTorch's random generator.

    On a CPU, PyTorch takes 4 to 7 ns per number to draw a mask, longer than the layer norm that follows. Here 16 random
    bits per number are enough: the probability is exact to within 2^-17, just below 1 to within 2^-16, and kept
    numbers are scaled by exactly the probability used.
    """
    if not training or not probability:
        return residual + branch
    if branch.device.type != "cpu" or torch.compiler.is_compiling() or probability >= 1:
        return residual + dropout(branch, probability)
    return torch.addcmul(residual, branch, keep_mask(branch, probability))


def keep_mask(like: Float[Tensor, "*axes"], probability: float) -> Float[Tensor, "*axes"]:
    """0 with the given probability, which is below 1, else the factor that keeps the mean at 1."""
    count = like.numel()
    # one 64-bit draw gives four 16-bit numbers, uniform in [-2^15, 2^15)
    bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    # of the 2^16 equally likely values, `dropped` many mean 0; one at least is kept, or the mean could not be 1
    dropped = min(round(probability * 2**16), 2**16 - 1)
    return (bits >= dropped - 2**15).view(like.shape).to(like.dtype).mul_(2**16 / (2**16 - dropped))
