"""Multi-scale deformable attention on CUDA, written in Triton.

Deformable DETR, arXiv 2010.04159, equation 3. One program handles one (image, query, head): it loops over the samples
and keeps a row of channels in registers. Features may be float32 or half precision; locations, weights and all sums are
float32 (float64 features stay float64). The gradient of `value` is summed by atomic additions, so its last bits differ
from run to run.

Importing this module imports Triton. With TRITON_INTERPRET=1 set before, the kernels run on the CPU, slowly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor


def _compiled(function: Callable[..., Any]) -> Any:
    return triton.jit(inspect.unwrap(function))  # the tests' shape checks wrap every function


@_compiled
def _corner_axis(position, size):  # type: ignore[no-untyped-def]
    """Along one axis: the lower neighbour's index, the fraction to the upper one, and whether each is in the level."""
    # Clamped just outside, where every weight is 0, so that the conversion to integers is defined.
    clamped = tl.where(position > -1.0, tl.where(position < size, position, size * 1.0), -1.0)
    floor = tl.floor(clamped)
    low = floor.to(tl.int32)
    fraction = clamped - floor + (position - clamped) * 0.0  # the last term keeps NaN as NaN
    has_low = (position > -1.0) & (low >= 0) & (low < size)
    # By the position itself too: clamped, one far outside would look like one at -1, whose upper neighbour exists.
    has_high = (position >= -1.0) & (low + 1 < size)
    return low, fraction, has_low, has_high


@_compiled
def _present(lane, channels, has_column, has_row):  # type: ignore[no-untyped-def]
    """Mask of a corner's channels, all or none (Triton's interpreter cannot combine a scalar and a vector of bits)."""
    return lane < tl.where(has_column & has_row, channels, 0)


@_compiled
def _forward_kernel(  # type: ignore[no-untyped-def]
    value, shapes, locations, weights, out, queries, keys, heads, channels,
    levels, points, BLOCK: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)  # (image, query, head)
    head = program % heads
    image = program // (heads * queries)
    lane = tl.arange(0, BLOCK)
    used = lane < channels
    total = tl.zeros((BLOCK,), ACCUMULATE)
    level_base = value + (image * keys * heads + head) * channels + lane  # this head's row of the level's first cell
    stride = heads * channels
    for level in range(levels):
        height = tl.load(shapes + 2 * level)
        width = tl.load(shapes + 2 * level + 1)
        for point in range(points):
            sample = (program * levels + level) * points + point  # [batch, queries, heads, levels, points], flat
            x = tl.load(locations + 2 * sample) * width - 0.5  # in cells, their centres at whole numbers
            y = tl.load(locations + 2 * sample + 1) * height - 0.5
            weight = tl.load(weights + sample)
            left, fx, has_left, has_right = _corner_axis(x, width)
            top, fy, has_top, has_bottom = _corner_axis(y, height)
            row = level_base + (top * width + left) * stride
            below = row + width * stride
            v00 = tl.load(row, mask=_present(lane, channels, has_left, has_top), other=0.0).to(ACCUMULATE)
            v01 = tl.load(row + stride, mask=_present(lane, channels, has_right, has_top), other=0.0).to(ACCUMULATE)
            v10 = tl.load(below, mask=_present(lane, channels, has_left, has_bottom), other=0.0).to(ACCUMULATE)
            v11 = tl.load(below + stride, mask=_present(lane, channels, has_right, has_bottom), other=0.0).to(
                ACCUMULATE
            )
            # bilinear interpolation, then equation 3's weighted sum
            upper = v00 * (1.0 - fx) + v01 * fx
            lower = v10 * (1.0 - fx) + v11 * fx
            total += weight * (upper * (1.0 - fy) + lower * fy)
        level_base += height * width * stride
    tl.store(out + program * channels + lane, total, mask=used)


@_compiled
def _backward_kernel(  # type: ignore[no-untyped-def]
    grad, value, shapes, locations, weights, grad_value, grad_locations, grad_weights, queries, keys, heads, channels,
    levels, points, WANTS_VALUE: tl.constexpr, BLOCK: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)  # (image, query, head)
    head = program % heads
    image = program // (heads * queries)
    lane = tl.arange(0, BLOCK)
    used = lane < channels
    g = tl.load(grad + program * channels + lane, mask=used, other=0.0).to(ACCUMULATE)
    offset = (image * keys * heads + head) * channels + lane
    stride = heads * channels
    for level in range(levels):
        height = tl.load(shapes + 2 * level)
        width = tl.load(shapes + 2 * level + 1)
        for point in range(points):
            sample = (program * levels + level) * points + point
            x = tl.load(locations + 2 * sample) * width - 0.5
            y = tl.load(locations + 2 * sample + 1) * height - 0.5
            weight = tl.load(weights + sample)
            left, fx, has_left, has_right = _corner_axis(x, width)
            top, fy, has_top, has_bottom = _corner_axis(y, height)
            i00 = offset + (top * width + left) * stride
            i10 = i00 + width * stride
            m00 = _present(lane, channels, has_left, has_top)
            m01 = _present(lane, channels, has_right, has_top)
            m10 = _present(lane, channels, has_left, has_bottom)
            m11 = _present(lane, channels, has_right, has_bottom)
            # dot products of the output's gradient with the four corners
            d00 = tl.sum(g * tl.load(value + i00, mask=m00, other=0.0).to(ACCUMULATE), 0)
            d01 = tl.sum(g * tl.load(value + i00 + stride, mask=m01, other=0.0).to(ACCUMULATE), 0)
            d10 = tl.sum(g * tl.load(value + i10, mask=m10, other=0.0).to(ACCUMULATE), 0)
            d11 = tl.sum(g * tl.load(value + i10 + stride, mask=m11, other=0.0).to(ACCUMULATE), 0)
            # corners outside of the level were read as 0, so they drop out of all gradients
            upper = d00 * (1.0 - fx) + d01 * fx
            lower = d10 * (1.0 - fx) + d11 * fx
            along_x = (d01 - d00) * (1.0 - fy) + (d11 - d10) * fy
            tl.store(grad_weights + sample, upper * (1.0 - fy) + lower * fy)
            # d/dx of the interpolation, in cells; locations are fractions of the level, hence times its size
            tl.store(grad_locations + 2 * sample, weight * along_x * width)
            tl.store(grad_locations + 2 * sample + 1, weight * (lower - upper) * height)
            if WANTS_VALUE:
                # other queries sample the same cells, hence atomic; a sum needs no order, hence relaxed
                above_g = g * weight * (1.0 - fy)
                below_g = g * weight * fy
                tl.atomic_add(grad_value + i00, above_g * (1.0 - fx), mask=m00, sem="relaxed")
                tl.atomic_add(grad_value + i00 + stride, above_g * fx, mask=m01, sem="relaxed")
                tl.atomic_add(grad_value + i10, below_g * (1.0 - fx), mask=m10, sem="relaxed")
                tl.atomic_add(grad_value + i10 + stride, below_g * fx, mask=m11, sem="relaxed")
        offset += height * width * stride


@lru_cache(maxsize=64)
def _shapes_on(device: torch.device, shapes_hw: tuple[int, ...]) -> Tensor:
    # cached: a copy from ordinary memory waits for the device, and would do so in every layer
    return torch.tensor(shapes_hw, dtype=torch.int32, device=device)


def _meta(value: Tensor) -> dict[str, Any]:
    return {
        # `tl.arange` takes powers of 2; the lanes beyond are masked
        "BLOCK": triton.next_power_of_2(max(value.shape[3], 1)),
        "ACCUMULATE": tl.float64 if value.dtype == torch.float64 else tl.float32,
        "num_warps": 1,  # a head has about 32 channels: one warp
    }


def forward(
    value: Float[Tensor, "batch keys heads channels"],
    shapes_hw: tuple[int, ...],
    sampling_locations: Float[Tensor, "batch queries heads levels points 2"],
    attention_weights: Float[Tensor, "batch queries heads levels points"],
) -> Float[Tensor, "batch queries heads*channels"]:
    """The attention's output in the dtype of `value`. `shapes_hw` is (height, width) of every level, flat."""
    batch, keys, heads, channels = value.shape
    _, queries, _, levels, points = attention_weights.shape
    out = value.new_empty(batch, queries, heads * channels)
    if out.numel():  # a grid of no programs cannot be launched
        arrays = (value.contiguous(), _shapes_on(value.device, shapes_hw))
        samples = (sampling_locations.contiguous(), attention_weights.contiguous())
        sizes = (queries, keys, heads, channels, levels, points)
        _forward_kernel[(batch * queries * heads,)](*arrays, *samples, out, *sizes, **_meta(value))
    return out


def backward(
    grad: Float[Tensor, "batch queries width"],
    value: Float[Tensor, "batch keys heads channels"],
    shapes_hw: tuple[int, ...],
    sampling_locations: Float[Tensor, "batch queries heads levels points 2"],
    attention_weights: Float[Tensor, "batch queries heads levels points"],
    wants_value: bool = True,
) -> tuple[
    Float[Tensor, "_ _ _ _"],
    Float[Tensor, "batch queries heads levels points 2"],
    Float[Tensor, "batch queries heads levels points"],
]:
    """Gradients of `value` (empty unless `wants_value`), sampling locations and attention weights."""
    batch, keys, heads, channels = value.shape
    _, queries, _, levels, points = attention_weights.shape
    accumulate = torch.float64 if value.dtype == torch.float64 else torch.float32
    shape = value.shape if wants_value else (0, 0, 0, 0)
    # summed in float32 even for half-precision features, and rounded once at the end
    grad_value = torch.zeros(shape, dtype=accumulate, device=value.device)
    grad_locations = sampling_locations.new_zeros(sampling_locations.shape)
    grad_weights = attention_weights.new_zeros(attention_weights.shape)
    if grad.numel():
        arrays = (grad.contiguous(), value.contiguous(), _shapes_on(value.device, shapes_hw))
        samples = (sampling_locations.contiguous(), attention_weights.contiguous())
        grads = (grad_value, grad_locations, grad_weights)
        sizes = (queries, keys, heads, channels, levels, points)
        _backward_kernel[(batch * queries * heads,)](*arrays, *samples, *grads, *sizes, wants_value, **_meta(value))
    return grad_value.to(value.dtype), grad_locations, grad_weights
