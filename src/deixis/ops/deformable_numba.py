"""Multi-scale deformable attention on the CPU, compiled by Numba.

Deformable DETR, arXiv 2010.04159, equation 3. Each (query, head) has `levels * points` samples. A kernel first locates
all samples of a query in a loop that vectorises over samples, then gathers (or scatters) rows of channels in loops that
vectorise over channels. The forward pass is split over queries. The backward pass is split over images and heads, so
that each thread owns its part of the gradient of `value` and needs no atomics.

Importing this module imports Numba (half a second); `deformable_attention` does so at the first call on a CPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deixis.ops.parallel import run_tasks

# Fewer multiply-adds than this stay on one thread: waking another costs more than it saves.
_SMALL_WORK = 200_000
# More tasks than threads: a thread that the system delays leaves its share to the others.
_MAX_TASKS_PER_THREAD = 4
# Samples located in one loop: long enough to vectorise well, short enough to stay in the first-level cache.
_BLOCK_SAMPLES = 256


def _compiled(reassociate: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Numba's jit without the interpreter lock, cached on disk where a cache folder is writable.

    Sums over channels may be reassociated, which vectorising them requires. Nothing else is relaxed: NaN and infinity
    must pass through, so that a broken step is detected.
    """
    fastmath = {"contract", "reassoc", "nsz"} if reassociate else {"contract"}

    def decorate(function: Callable[..., Any]) -> Any:
        plain = inspect.unwrap(function)  # the tests' shape checks wrap every function; Numba needs the bare one
        options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
        try:
            return numba.njit(cache=True, **options)(plain)
        except RuntimeError:  # no cache folder is writable
            return numba.njit(**options)(plain)

    return decorate


# With unsigned indices Numba omits its test for negative ones, which prevents vectorised loops.
_U = np.uint64
# Rows of the scratch table that `_locate` fills; it has one column per sample.
_X0, _X1, _Y0, _Y1, _HAS_X0, _HAS_X1, _HAS_Y0, _HAS_Y1, _ROWS = range(9)


@_compiled()
def _locate(locations, first, count, widths, heights, starts, table, keys):  # type: ignore[no-untyped-def]
    """Fills, for `count` consecutive samples, the bilinear weights along x and y, which corners exist, and their keys.

    A corner outside the level has weight 0 and the key of its neighbour inside, so that reading it is safe.
    """
    one = table.dtype.type(1)
    zero = table.dtype.type(0)
    half = table.dtype.type(0.5)
    for j in range(count):
        s = _U(j)
        last_x = widths[s] - np.int32(1)
        last_y = heights[s] - np.int32(1)
        width = table.dtype.type(widths[s])
        height = table.dtype.type(heights[s])
        # from fractions of the level to cells, cell centres at whole numbers
        x = locations[_U(2) * (first + s)] * width - half
        y = locations[_U(2) * (first + s) + _U(1)] * height - half
        # Clamped just outside, where every weight is 0; NaN becomes -1 here and is restored below.
        inside_x = x if x > -one else -one
        inside_x = inside_x if inside_x < width else width
        inside_y = y if y > -one else -one
        inside_y = inside_y if inside_y < height else height
        floor_x = np.floor(inside_x)
        floor_y = np.floor(inside_y)
        x0 = np.int32(floor_x)
        y0 = np.int32(floor_y)
        # x - inside_x is NaN where x is; times zero it is NaN or 0 (an infinite x gives 0 * inf = NaN too).
        fraction_x = inside_x - floor_x + (x - inside_x) * zero
        fraction_y = inside_y - floor_y + (y - inside_y) * zero
        has_x0 = one if x0 >= 0 and x0 <= last_x and x > -one else zero
        # By x itself too: clamped, one far outside would look like one at -1, whose right neighbour exists.
        has_x1 = one if x0 < last_x and x >= -one else zero
        has_y0 = one if y0 >= 0 and y0 <= last_y and y > -one else zero
        has_y1 = one if y0 < last_y and y >= -one else zero
        table[_U(_X0), s] = (one - fraction_x) * has_x0
        table[_U(_X1), s] = fraction_x * has_x1
        table[_U(_Y0), s] = (one - fraction_y) * has_y0
        table[_U(_Y1), s] = fraction_y * has_y1
        table[_U(_HAS_X0), s] = has_x0
        table[_U(_HAS_X1), s] = has_x1
        table[_U(_HAS_Y0), s] = has_y0
        table[_U(_HAS_Y1), s] = has_y1
        # Keys count the cells of all levels, row by row; `starts` is the first one of the sample's level.
        left = min(max(x0, np.int32(0)), last_x)
        right = min(x0 + np.int32(1), last_x)
        top = starts[s] + min(max(y0, np.int32(0)), last_y) * widths[s]
        bottom = starts[s] + min(y0 + np.int32(1), last_y) * widths[s]
        keys[_U(0), s] = top + left
        keys[_U(1), s] = top + right
        keys[_U(2), s] = bottom + left
        keys[_U(3), s] = bottom + right


@_compiled()
def _corners(table, keys, weights, first, head_at, begin, end, stride, offsets, scales):  # type: ignore[no-untyped-def]
    """Turns the table of `_locate` for one head into offsets in flat `value` and weights, four corners per sample."""
    for s in range(begin, end):
        j = _U(s)
        k = _U(4) * j
        # The attention weight enters each corner's product once, through x.
        x0 = table[_U(_X0), j] * weights[first + j]
        x1 = table[_U(_X1), j] * weights[first + j]
        y0 = table[_U(_Y0), j]
        y1 = table[_U(_Y1), j]
        # (y, x) 00, 01, 10, 11: the order of `keys`
        scales[k] = x0 * y0
        scales[k + _U(1)] = x1 * y0
        scales[k + _U(2)] = x0 * y1
        scales[k + _U(3)] = x1 * y1
        for corner in range(4):
            c = _U(corner)
            offsets[k + c] = head_at + _U(keys[c, j]) * stride


@_compiled(reassociate=True)
def _gather(out, at, value, offsets, scales, first, last, channels):  # type: ignore[no-untyped-def]
    """Adds the weighted rows of corners `first ... last - 1` to `out`. Four at a time share a load and a store."""
    for corner in range(first, last, 4):
        j = _U(corner)
        i0, i1, i2, i3 = offsets[j], offsets[j + _U(1)], offsets[j + _U(2)], offsets[j + _U(3)]
        w0, w1, w2, w3 = scales[j], scales[j + _U(1)], scales[j + _U(2)], scales[j + _U(3)]
        for c in range(channels):
            k = _U(c)
            out[at + k] += w0 * value[i0 + k] + w1 * value[i1 + k] + w2 * value[i2 + k] + w3 * value[i3 + k]


@_compiled()
def _forward(value, locations, weights, widths, heights, starts, out, sizes, first_row, last_row):  # type: ignore[no-untyped-def]
    """A row is an (image, query) pair; arrays are flat; `sizes`: (queries, keys, heads, channels, samples per head)."""
    queries, key_count, heads, channels, samples = sizes
    # The geometry repeats a query's samples for as many queries as one loop locates.
    block = max(1, widths.shape[0] // max(1, heads * samples))
    table = np.empty((_ROWS, widths.shape[0]), value.dtype)
    keys = np.empty((4, widths.shape[0]), np.int32)
    offsets = np.empty(4 * widths.shape[0], np.uint64)
    scales = np.empty(4 * widths.shape[0], value.dtype)
    for block_row in range(first_row, last_row, block):
        end_row = min(block_row + block, last_row)
        # samples lie as [batch, queries, heads, samples], flat
        first = _U(block_row * heads * samples)
        _locate(locations, first, (end_row - block_row) * heads * samples, widths, heights, starts, table, keys)
        for row_head in range(block_row * heads, end_row * heads):
            begin = (row_head - block_row * heads) * samples
            end = begin + samples
            # value is [batch, keys, heads, channels], flat
            image, head = row_head // (queries * heads), row_head % heads
            head_at = _U((image * key_count * heads + head) * channels)
            _corners(table, keys, weights, first, head_at, begin, end, _U(heads * channels), offsets, scales)
            at = _U(row_head * channels)
            for c in range(channels):
                # `out` comes uninitialised
                out[at + _U(c)] = 0
            _gather(out, at, value, offsets, scales, 4 * begin, 4 * end, channels)


@_compiled(reassociate=True)
def _dots(dots, sample, grad, at, value, offsets, channels):  # type: ignore[no-untyped-def]
    """Dot products of a row of the output's gradient with the rows at a sample's four corners."""
    j = _U(4) * sample
    i0, i1, i2, i3 = offsets[j], offsets[j + _U(1)], offsets[j + _U(2)], offsets[j + _U(3)]
    d0 = d1 = d2 = d3 = value.dtype.type(0)
    for c in range(channels):
        k = _U(c)
        g = grad[at + k]
        d0 += g * value[i0 + k]
        d1 += g * value[i1 + k]
        d2 += g * value[i2 + k]
        d3 += g * value[i3 + k]
    dots[_U(0), sample] = d0
    dots[_U(1), sample] = d1
    dots[_U(2), sample] = d2
    dots[_U(3), sample] = d3


@_compiled()
def _scatter(grad_value, sample, grad, at, offsets, scales, channels):  # type: ignore[no-untyped-def]
    """Adds a weighted row of the output's gradient to the gradient of the rows at a sample's four corners."""
    for corner in range(4):
        j = _U(4) * sample + _U(corner)
        scale = scales[j]
        out_at = offsets[j]
        # 0 outside of the level, where the key is that of a neighbour; NaN passes
        if scale != 0:
            for c in range(channels):
                grad_value[out_at + _U(c)] += scale * grad[at + _U(c)]


@_compiled()
def _differentiate(table, dots, weights, first, count, widths, heights, grad_locations, grad_weights):  # type: ignore[no-untyped-def]
    """Gradients of consecutive samples' weights and locations, from the dot products of their corners.

    With d_rc the dot product at row r and column c of the four corners, the sample is S = Σ y_r x_c d_rc. So
    dS/dx = Σ y_r (d_r1 - d_r0), in cells, times the width because locations are fractions of the level.
    """
    for s in range(count):
        j = _U(s)
        d00, d01, d10, d11 = dots[_U(0), j], dots[_U(1), j], dots[_U(2), j], dots[_U(3), j]
        x0, x1, y0, y1 = table[_U(_X0), j], table[_U(_X1), j], table[_U(_Y0), j], table[_U(_Y1), j]
        has_x0, has_x1 = table[_U(_HAS_X0), j], table[_U(_HAS_X1), j]
        has_y0, has_y1 = table[_U(_HAS_Y0), j], table[_U(_HAS_Y1), j]
        # A missing corner counts as 0; its dot product is that of the neighbour whose key it has.
        along_x = y0 * (has_x1 * d01 - has_x0 * d00) + y1 * (has_x1 * d11 - has_x0 * d10)
        along_y = x0 * (has_y1 * d10 - has_y0 * d00) + x1 * (has_y1 * d11 - has_y0 * d01)
        # Read first: `grad_weights` may be the same array.
        weight = weights[first + j]
        grad_weights[first + j] = y0 * (x0 * d00 + x1 * d01) + y1 * (x0 * d10 + x1 * d11)
        grad_locations[_U(2) * (first + j)] = along_x * weight * table.dtype.type(widths[j])
        grad_locations[_U(2) * (first + j) + _U(1)] = along_y * weight * table.dtype.type(heights[j])


@_compiled()
def _pack(packed, strided, at, stride, rows, width):  # type: ignore[no-untyped-def]
    """Copies `rows` pieces of `width` numbers, which start at `at` and lie `stride` apart, into one block."""
    for row in range(rows):
        source = at + _U(row) * stride
        target = _U(row * width)
        for c in range(width):
            packed[target + _U(c)] = strided[source + _U(c)]


@_compiled()
def _unpack(strided, at, stride, packed, rows, width):  # type: ignore[no-untyped-def]
    """The inverse of `_pack`."""
    for row in range(rows):
        target = at + _U(row) * stride
        source = _U(row * width)
        for c in range(width):
            strided[target + _U(c)] = packed[source + _U(c)]


@_compiled()
def _backward(  # type: ignore[no-untyped-def]
    grad, value, locations, weights, widths, heights, starts, grads, wants_value, sizes, image, head
):
    """Gradients for one image and one head; `grads` is (value, locations, weights).

    The head's features, an eighth of every row of `value`, are packed first. One or two levels of them then fit into
    the second-level cache; left a kilobyte apart, they could use only an eighth of it.
    """
    queries, key_count, heads, channels, samples = sizes
    grad_value, grad_locations, grad_weights = grads
    block = max(1, widths.shape[0] // max(1, samples))  # of one head alone, so more queries fit in
    # `own_...`: this head's samples of a block of queries, packed one after another.
    count = block * samples
    table = np.empty((_ROWS, count), value.dtype)
    keys = np.empty((4, count), np.int32)
    offsets = np.empty(4 * count, np.uint64)
    scales = np.empty(4 * count, value.dtype)
    dots = np.empty((4, count), value.dtype)
    own_locations = np.empty(2 * count, value.dtype)
    own_weights = np.empty(count, value.dtype)
    own_grad = np.empty(block * channels, value.dtype)
    rows = np.empty(key_count * channels, value.dtype)  # this head's features of all levels
    grad_rows = np.zeros(key_count * channels if wants_value else 0, value.dtype)
    value_at = _U((image * key_count * heads + head) * channels)
    _pack(rows, value, value_at, _U(heads * channels), key_count, channels)
    for first_query in range(0, queries, block):
        here = min(block, queries - first_query)
        # of the block's first query; the same head of the next query is `heads` pieces further on
        row_head = (image * queries + first_query) * heads + head
        _pack(own_locations, locations, _U(2 * row_head * samples), _U(2 * heads * samples), here, 2 * samples)
        _pack(own_weights, weights, _U(row_head * samples), _U(heads * samples), here, samples)
        _pack(own_grad, grad, _U(row_head * channels), _U(heads * channels), here, channels)
        _locate(own_locations, _U(0), here * samples, widths, heights, starts, table, keys)
        _corners(table, keys, own_weights, _U(0), _U(0), 0, here * samples, _U(channels), offsets, scales)
        for query in range(here):
            at = _U(query * channels)
            for s in range(query * samples, (query + 1) * samples):
                _dots(dots, _U(s), own_grad, at, rows, offsets, channels)
                if wants_value:
                    _scatter(grad_rows, _U(s), own_grad, at, offsets, scales, channels)
        # in place: the gradients replace the locations and weights, which are not needed any more
        _differentiate(table, dots, own_weights, _U(0), here * samples, widths, heights, own_locations, own_weights)
        _unpack(grad_locations, _U(2 * row_head * samples), _U(2 * heads * samples), own_locations, here, 2 * samples)
        _unpack(grad_weights, _U(row_head * samples), _U(heads * samples), own_weights, here, samples)
    if wants_value:
        _unpack(grad_value, value_at, _U(heads * channels), grad_rows, key_count, channels)


@lru_cache(maxsize=64)
def _sample_geometry(shapes_hw: tuple[int, ...], heads: int, points: int) -> tuple[np.ndarray, ...]:
    """For each sample of a query the width, height and first key of its level, repeated for a block of queries."""
    heights_widths = np.asarray(shapes_hw, np.int64).reshape(-1, 2)  # [levels, 2]
    areas = heights_widths.prod(1)
    starts = np.cumsum(areas) - areas
    columns = (heights_widths[:, 1], heights_widths[:, 0], starts)
    # queries that one loop locates
    block = max(1, _BLOCK_SAMPLES // max(1, heads * points * len(areas)))
    return tuple(np.tile(np.repeat(column, points), heads * block).astype(np.int32) for column in columns)


def _flat(tensor: Tensor) -> np.ndarray:
    flat: np.ndarray = tensor.detach().contiguous().view(-1).numpy()
    return flat


def _threads_for(work: int) -> int:
    return 1 if work < _SMALL_WORK else torch.get_num_threads()


def forward(
    value: Float[Tensor, "batch keys heads channels"],
    shapes_hw: tuple[int, ...],
    sampling_locations: Float[Tensor, "batch queries heads levels points 2"],
    attention_weights: Float[Tensor, "batch queries heads levels points"],
) -> Float[Tensor, "batch queries heads*channels"]:
    """The attention's output. `shapes_hw` is (height, width) of every level, flat; tensors are float32 or float64."""
    batch, key_count, heads, channels = value.shape
    queries, levels, points = attention_weights.shape[1], attention_weights.shape[3], attention_weights.shape[4]
    out = value.new_empty(batch, queries, heads * channels)
    rows, samples = batch * queries, levels * points
    threads = _threads_for(4 * rows * heads * samples * channels)  # four corners per sample
    tasks = 1 if threads == 1 else min(rows, threads * _MAX_TASKS_PER_THREAD)
    # task i gets the rows from bounds[i] up to bounds[i + 1]
    bounds = [rows * task // tasks for task in range(tasks + 1)] if rows else [0]
    arrays = (_flat(value), _flat(sampling_locations), _flat(attention_weights))
    geometry, out_flat = _sample_geometry(shapes_hw, heads, points), _flat(out)
    sizes = (queries, key_count, heads, channels, samples)
    run_tasks(
        lambda task: _forward(*arrays, *geometry, out_flat, sizes, bounds[task], bounds[task + 1]),
        len(bounds) - 1,
        threads,
    )
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
    batch, key_count, heads, channels = value.shape
    queries, levels, points = attention_weights.shape[1], attention_weights.shape[3], attention_weights.shape[4]
    # Uninitialised: each number is written by the task of its image and head.
    grad_value = torch.empty(value.shape if wants_value else (0, 0, 0, 0), dtype=value.dtype)
    grad_locations = torch.empty_like(sampling_locations, memory_format=torch.contiguous_format)
    grad_weights = torch.empty_like(attention_weights, memory_format=torch.contiguous_format)
    # four corners per sample, each with a dot product and a weighted row
    threads = _threads_for(8 * batch * queries * heads * levels * points * channels)
    arrays = (_flat(grad), _flat(value), _flat(sampling_locations), _flat(attention_weights))
    geometry = _sample_geometry(shapes_hw, heads, points)
    grads = (_flat(grad_value), _flat(grad_locations), _flat(grad_weights))
    sizes = (queries, key_count, heads, channels, levels * points)

    def task(index: int) -> None:
        _backward(*arrays, *geometry, grads, wants_value, sizes, index // heads, index % heads)

    run_tasks(task, batch * heads, threads)
    return grad_value, grad_locations, grad_weights
