"""The small models that ship in the package, by name."""

from __future__ import annotations

from pathlib import Path

from deixis.errors import ModelError

BUILTIN = "builtin"
"""The model name that stands for the detector in the package."""


def builtin_detector_folder() -> Path:
    """The folder of the small detector in the package, trained on generated scenes.

    Raises:
        ModelError: the installation lacks it.
    """
    folder = Path(__file__).parents[1] / "builtin" / "detector"
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: the built-in detector is missing; reinstall deixis or name another model")
    return folder


def resolve_model(name: str | Path) -> str | Path:
    """`builtin` as the folder it stands for; every other folder or hub id as it is.

    Raises:
        ModelError: the built-in detector is asked for and missing.
    """
    return builtin_detector_folder() if str(name) == BUILTIN else name
