"""Where a command runs."""

from __future__ import annotations

import torch

from deixis.errors import OptionError


def choose_device(name: str | None) -> torch.device:
    """The device of a name; without one, the first GPU if there is one, else the CPU.

    Raises:
        OptionError: no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"--device: got {name!r}, which cannot be used here ({reason}); try --device cpu") from error
    return device


def require_gpus(count: int) -> None:
    """Raises OptionError unless this machine has that many GPUs."""
    present = torch.cuda.device_count()
    if count > present:
        raise OptionError(f"--gpus: got {count}, this machine has {present}; give --gpus {present}")
