"""The small models that ship in the package, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from deixis.errors import ModelError

BUILTIN = "builtin"
"""The model name that stands for the detector, or the segmenter, in the package."""


def builtin_folder(kind: Literal["detector", "segmenter"]) -> Path:
    """The folder of a small model in the package, trained on generated scenes.

    Raises:
        ModelError: the installation lacks it.
    """
    folder = Path(__file__).parents[1] / "builtin" / kind
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: the built-in {kind} is missing; reinstall deixis or name another model")
    return folder


def resolve_model(name: str | Path, kind: Literal["detector", "segmenter"] = "detector") -> str | Path:
    """`builtin` as the folder it stands for; every other folder or hub id as it is.

    Raises:
        ModelError: the built-in model is asked for and missing.
    """
    return builtin_folder(kind) if str(name) == BUILTIN else name
