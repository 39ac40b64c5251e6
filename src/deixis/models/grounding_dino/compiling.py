"""Compiling a detector's layers with torch.compile: fewer kernels and passes over memory, for GPUs above all."""

from __future__ import annotations

import torch

from deixis.errors import OptionError
from deixis.models.grounding_dino.detector import GroundingDino

BUCKET_PX = 64
"""Padded sides of a compiled model's batches are multiples of it: few sizes, all of which the strides divide."""


def compile_layers(model: GroundingDino, device: torch.device) -> None:
    """Compile each layer of encoder and decoder in place, at its first call; names in checkpoints stay.

    Layers of a kind share their graphs, and sizes are variables in them, so that a new size of image or prompt costs
    nothing. The backbones stay as they are: frozen ones run without a graph, and windows depend on the size.

    Raises:
        OptionError: nothing can be compiled here, which is tried first.
    """
    require_compiler(device)
    for layer in (*model.model.encoder.layers, *model.model.decoder.layers):
        layer.compile(dynamic=True)


def require_compiler(device: torch.device) -> None:
    """Compile the smallest thing there is.

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
            "leave --compile out"
        ) from error
