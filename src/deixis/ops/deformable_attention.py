"""Multi-scale deformable attention: one function that picks the fastest implementation for the tensors' device.

Deformable DETR (https://arxiv.org/abs/2010.04159), equation 3. Every query samples a few points on every level of a
feature pyramid, by bilinear interpolation, and returns the weighted sum of the samples.

    CPU                     "numba"      compiled at the first call, then cached on disk
    CUDA with Triton        "triton"     checked once per machine; plain PyTorch where it is wrong
    anything else           "reference"  plain PyTorch
"""

from __future__ import annotations

from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deixis.ops.deformable_reference import reference_deformable_attention
from deixis.ops.kernel_check import KernelDifference, kernel_difference, known_verdict, trusted, verdict_key

IMPLEMENTATIONS = ("numba", "triton", "reference")
_HAS_NUMBA = find_spec("numba") is not None
_HAS_TRITON = find_spec("triton") is not None


def multi_scale_deformable_attention(
    value: Float[Tensor, "batch keys heads channels"],
    spatial_shapes_hw: tuple[tuple[int, int], ...],
    sampling_locations: Float[Tensor, "batch queries heads levels points 2"],
    *,
    attention_weights: Float[Tensor, "batch queries heads levels points"],
    implementation: str | None = None,
) -> Float[Tensor, "batch queries heads*channels"]:
    """Samples a feature pyramid at given points and returns the weighted sum per query and head.

    Args:
        value: the levels' features, flattened row by row and concatenated; `keys` is the sum of height * width.
        spatial_shapes_hw: (height, width) of every level, in cells.
        sampling_locations: (x, y) over a level's width and height, so [0, 1] spans it. The centre of the first cell
            is at (0.5 / width, 0.5 / height). Outside the level values are 0, with a linear transition of half a cell.
        attention_weights: a weight per sample; usually they sum to 1 over levels and points.
        implementation: one of `IMPLEMENTATIONS`; None picks one by device.

    Returns:
        The weighted sums in the dtype of `value`, heads concatenated. Kernels compute in float32, or in float64 if
        `value` is float64; half-precision inputs are summed in float32.

    Raises:
        ValueError: shapes disagree, a level has no cells, or the implementation is unknown or not for this device.

    Example:
        >>> value = torch.arange(6.0).view(1, 6, 1, 1)  # one level of 2 rows and 3 columns
        >>> centre_of_cell_4 = torch.tensor([1.5 / 3, 1.5 / 2]).view(1, 1, 1, 1, 1, 2)
        >>> weights = torch.ones(1, 1, 1, 1, 1)
        >>> multi_scale_deformable_attention(value, ((2, 3),), centre_of_cell_4, attention_weights=weights).item()
        4.0
    """
    # before any kernel: by these numbers they read memory, and would read outside of the tensors
    _check_shapes(value, spatial_shapes_hw, sampling_locations, attention_weights=attention_weights)
    chosen = implementation or default_implementation(value.device.type)
    compute = torch.float64 if value.dtype == torch.float64 else torch.float32
    # Casts are part of the graph: gradients come back in the inputs' own precisions.
    locations, weights = sampling_locations.to(compute), attention_weights.to(compute)
    if chosen == "reference":
        out = reference_deformable_attention(value.to(compute), spatial_shapes_hw, locations, attention_weights=weights)
    else:
        _check_device(chosen, value.device.type)
        features = value if chosen == "triton" else value.to(compute)  # Triton reads half precision as it is
        # operators take no tuple of tuples: ((h, w), ...) -> [h, w, h, w, ...]
        shapes = [side for shape_hw in spatial_shapes_hw for side in shape_hw]
        out = torch.ops.deixis.deformable_attention(features, shapes, locations, weights, chosen)
    return out.to(value.dtype)


def _check_shapes(
    value: Tensor, shapes_hw: tuple[tuple[int, int], ...], sampling_locations: Tensor, *, attention_weights: Tensor
) -> None:
    if value.dim() != 4 or sampling_locations.dim() != 6 or attention_weights.dim() != 5:
        raise ValueError(
            "deformable attention expects value [batch, keys, heads, channels], sampling_locations [batch, queries, "
            "heads, levels, points, 2] and attention_weights [batch, queries, heads, levels, points], got "
            f"{list(value.shape)}, {list(sampling_locations.shape)}, {list(attention_weights.shape)}"
        )
    batch, keys, heads, _ = value.shape
    wanted = (batch, sampling_locations.shape[1], heads, len(shapes_hw), sampling_locations.shape[4])
    if sampling_locations.shape != (*wanted, 2) or attention_weights.shape != wanted:
        raise ValueError(
            f"for value {list(value.shape)} and {len(shapes_hw)} levels, deformable attention expects "
            f"attention_weights {list(wanted)} and sampling_locations {[*wanted, 2]}, got "
            f"{list(attention_weights.shape)} and {list(sampling_locations.shape)}"
        )
    if any(height < 1 or width < 1 for height, width in shapes_hw):
        raise ValueError(
            f"every level of deformable attention needs at least one cell, got (height, width) {list(shapes_hw)}; "
            "use larger images or fewer levels"
        )
    if sum(height * width for height, width in shapes_hw) != keys:
        raise ValueError(
            f"levels of (height, width) {list(shapes_hw)} have {sum(h * w for h, w in shapes_hw)} cells, "
            f"but value has {keys} keys"
        )


def default_implementation(device_type: str) -> str:
    """The fastest implementation on a kind of device that gives right results there."""
    if device_type == "cpu" and _HAS_NUMBA:
        return "numba"
    if device_type == "cuda" and _HAS_TRITON and triton_is_right():
        return "triton"
    return "reference"


def triton_is_right() -> bool:
    """Whether the Triton kernels agree with the reference on this machine's GPU; see `kernel_check.trusted`."""
    if torch.compiler.is_compiling():  # a graph cannot run a check; `compile_layers` has asked before
        return known_verdict("triton")

    def key() -> str:
        versions = torch.__version__, import_module("triton").__version__, torch.cuda.get_device_name()
        return verdict_key(Path(__file__).with_name("deformable_triton.py"), *versions)

    return trusted("triton", lambda: kernels_fit("triton", "cuda"), key)


def kernels_fit(implementation: str, device: str | torch.device) -> bool:
    """Whether an implementation agrees with the reference, forward and backward, in float32 and bfloat16."""
    precisions = precisions_of(torch.device(device).type)
    return all(difference_of(implementation, device, dtype).fits(dtype) for dtype in precisions)


def precisions_of(device_type: str) -> tuple[torch.dtype, ...]:
    """Those that a kind of device computes in; GPUs before Ampere have no bfloat16."""
    has_bf16 = device_type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return (torch.float32, torch.bfloat16) if has_bf16 else (torch.float32,)


def implementations_of(device_type: str) -> tuple[str, ...]:
    """Those that could run on a kind of device, the fastest first, whether or not they are right there."""
    fast = {"cpu": ("numba",) * _HAS_NUMBA, "cuda": ("triton",) * _HAS_TRITON}
    return (*fast.get(device_type, ()), "reference")


def difference_of(implementation: str, device: str | torch.device, dtype: torch.dtype) -> KernelDifference:
    """How far an implementation is from the reference on a device."""
    kernel, reference = (
        partial(multi_scale_deformable_attention, implementation=name) for name in (implementation, "reference")
    )
    return kernel_difference(kernel, reference, device, dtype)


def _check_device(implementation: str, device_type: str) -> None:
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"no deformable attention called {implementation!r}; choose from {list(IMPLEMENTATIONS)}")
    if implementation == "numba" and device_type != "cpu":
        raise ValueError(f"the numba deformable attention runs on the cpu, the tensors are on {device_type}")


@lru_cache(maxsize=2)
def _kernels(implementation: str) -> ModuleType:
    """The module with the kernels, imported at first use: Numba and Triton take half a second each."""
    return import_module(f"deixis.ops.deformable_{implementation}")


# Registered as PyTorch operators, the kernels are opaque to torch.compile and work under gradient checkpointing.
# `SymInt`: in a graph for images of any size the sides are variables.
_ARGUMENTS = "Tensor value, SymInt[] shapes_hw, Tensor sampling_locations, Tensor attention_weights, str implementation"


@torch.library.custom_op("deixis::deformable_attention", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
def _forward_op(
    value: Any, shapes_hw: Any, sampling_locations: Any, attention_weights: Any, implementation: Any
) -> Any:
    kernels = _kernels(implementation)
    return kernels.forward(value, tuple(shapes_hw), sampling_locations, attention_weights)


@torch.library.custom_op(
    "deixis::deformable_attention_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {_ARGUMENTS}, bool wants_value) -> (Tensor, Tensor, Tensor)",
)
def _backward_op(
    grad: Any,
    value: Any,
    shapes_hw: Any,
    sampling_locations: Any,
    attention_weights: Any,
    implementation: Any,
    wants_value: Any,
) -> Any:
    kernels = _kernels(implementation)
    return kernels.backward(grad, value, tuple(shapes_hw), sampling_locations, attention_weights, wants_value)


def _forward_fake(
    value: Any, shapes_hw: Any, sampling_locations: Any, attention_weights: Any, implementation: Any
) -> Any:
    # shapes and dtypes only, for torch.compile and torch.export, which run no kernel
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, attention_weights.shape[1], heads * channels)


def _backward_fake(
    grad: Any,
    value: Any,
    shapes_hw: Any,
    sampling_locations: Any,
    attention_weights: Any,
    implementation: Any,
    wants_value: Any,
) -> Any:
    return (  # a frozen `value` gets no gradient; an operator cannot return None
        value.new_empty(value.shape if wants_value else (0, 0, 0, 0)),
        sampling_locations.new_empty(sampling_locations.shape),
        attention_weights.new_empty(attention_weights.shape),
    )


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    value, ctx.shapes_hw, sampling_locations, attention_weights, ctx.implementation = inputs
    # the inputs alone: samples would be `levels * points` times as large as the output, and are taken again
    ctx.save_for_backward(value, sampling_locations, attention_weights)


def _differentiate(ctx: Any, grad: Any) -> Any:
    value, sampling_locations, attention_weights = ctx.saved_tensors
    # `value` needs no gradient where everything before it is frozen
    wants_value = ctx.needs_input_grad[0]
    grad_value, grad_locations, grad_weights = torch.ops.deixis.deformable_attention_backward(
        grad, value, ctx.shapes_hw, sampling_locations, attention_weights, ctx.implementation, wants_value
    )
    # one per argument of the forward operator; shapes and the name have no gradient
    return grad_value if wants_value else None, None, grad_locations, grad_weights, None


_forward_op.register_fake(_forward_fake)
_backward_op.register_fake(_backward_fake)
_forward_op.register_autograd(_differentiate, setup_context=_save)
