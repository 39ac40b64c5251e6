"""The options of `deixis doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deixis.options.types import Options


@dataclass(frozen=True)
class DoctorOptions(Options):
    """Check this machine and this installation: libraries, device, kernels, a model beside transformers' own, speed."""

    model: str = "builtin"
    """Detector that is compared with transformers' own: "builtin", a folder, an adapter folder, or a hub id."""
    image: Path | None = None
    """Picture to compare on; one of --data, or a generated one, if not given."""
    data: str | None = None
    """Annotations in any format (docs/formats.md): the speed of reading is measured on their images, and the model is
    compared on one of them."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given. The kernels of the CPU are checked in any case."""
