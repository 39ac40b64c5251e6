"""The divisor of a step's losses."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def boxes_per_process(count: int, device: torch.device) -> Float[Tensor, ""]:
    """The divisor of a step's losses: the boxes of all processes divided by the number of processes, at least 1.

    DDP averages gradients over processes. With this divisor the average equals that of one process on the joined
    batch. All processes must call it. It does not synchronise with the device.
    """
    total = torch.full((), float(count), device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
        total = total / dist.get_world_size()
    return total.clamp(min=1)
