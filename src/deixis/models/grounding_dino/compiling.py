"""Compiling a detector's layers with torch.compile: fewer kernels and memory passes, mainly for GPUs."""

from __future__ import annotations

import torch

from deixis.errors import OptionError
from deixis.models.grounding_dino.detector import GroundingDino
from deixis.ops.deformable_attention import default_implementation

BUCKET_PX = 64
"""Padded sides of a compiled model's batches are multiples of this: few sizes, all divisible by the strides."""


def compile_layers(model: GroundingDino, device: torch.device) -> None:
    """Compile each encoder and decoder layer in place, at its first call; names in checkpoints do not change.

    Layers of the same kind share their graphs, in which sizes are variables, so a new image or prompt size costs
    nothing. The backbones are not compiled: frozen ones run without a graph, and Swin's windows depend on the size.

    Raises:
        OptionError: torch.compile does not work on this machine.
    """
    require_compiler(device)
    default_implementation(device.type)  # checks the kernel, which compiled layers cannot
    for layer in (*model.model.encoder.layers, *model.model.decoder.layers):
        layer.compile(dynamic=True)


def require_compiler(device: torch.device) -> None:
    """Try torch.compile on a one-line function.

    Raises:
        OptionError: it does not work.
    """
    needed = "Triton" if device.type == "cuda" else "a C++ compiler (g++ or clang)"
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OptionError(
            f"--compile: torch.compile does not work on this machine's {device.type} ({reason}); install {needed}, or "
            "remove --compile"
        ) from error
