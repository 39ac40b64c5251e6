"""The device that models run on where none is named."""

from __future__ import annotations

import torch


def best_device(device: str | torch.device | None = None) -> torch.device:
    """The device of a name; without one, the first GPU if there is one, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
