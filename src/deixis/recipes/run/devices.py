"""Where a command runs."""

from __future__ import annotations

import torch

from deixis.errors import OptionError

PEAK_TFLOPS = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
"""Dense products in bf16, from the makers' data sheets. The first name that a device's name contains counts."""


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


def known_peak(device: torch.device, precision: str) -> float | None:
    """The most operations per second of a device, in 10^12; None of one, or in arithmetic, that the table lacks."""
    if device.type != "cuda" or precision != "bf16":
        return None
    words = f" {torch.cuda.get_device_name(device)} ".replace("-", " ")
    # Whole words, as "L4" is in "L40S" too.
    return next((float(peak) for name, peak in PEAK_TFLOPS.items() if f" {name} " in words), None)
