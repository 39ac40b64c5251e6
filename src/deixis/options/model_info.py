"""The options of `deixis model info`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from deixis.options.marks import Required
from deixis.options.types import Options


@dataclass(frozen=True)
class ModelInfoOptions(Options):
    """Print what a model is: family, sizes, parts and parameters, tokenizer, image size, adapters."""

    model: Annotated[str, Required("runs/raccoons/checkpoints/best")] = "builtin"
    """"builtin", a folder, an adapter folder, a hub id, a .pth file, or a file of `deixis model export`."""
