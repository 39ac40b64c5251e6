"""Resolving model names: the small models in the package, and the model trained by a run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from deixis.errors import ModelError

BUILTIN = "builtin"
"""The name of the detector, or the segmenter, in the package."""


def builtin_folder(kind: Literal["detector", "segmenter"]) -> Path:
    """The folder of a small model in the package, trained on generated scenes.

    Raises:
        ModelError: it is missing from the installation.
    """
    folder = Path(__file__).parents[1] / "builtin" / kind
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: the built-in {kind} is missing; reinstall deixis or name another model")
    return folder


def resolve_model(name: str | Path, kind: Literal["detector", "segmenter"] = "detector") -> str | Path:
    """The model folder for a name: of `builtin` the packaged folder, of a run its trained model (`teachers`); any other
    folder or hub id is returned unchanged.

    Raises:
        ModelError: the built-in model is missing, or a run has no trained model yet, or several.
    """
    return builtin_folder(kind) if str(name) == BUILTIN else model_of_run(name)


def model_of_run(name: str | Path) -> str | Path:
    """The trained model in a run's folder, in its `teachers` or `checkpoints`; anything else is returned unchanged.

    Raises:
        ModelError: there are several, or none yet.
    """
    folder = Path(name)
    if not _is_folder(folder) or _is_model(folder):
        return name
    for places in (folder / "teachers", folder if folder.name == "teachers" else None, folder / "checkpoints"):
        found = sorted(path for path in places.iterdir() if _is_model(path)) if places and _is_folder(places) else []
        found = [path for path in found if (path / "config.json").exists()] or found  # rather than their adapters
        if len(found) > 1:
            raise ModelError(f"{name}: contains several models; name one of {', '.join(map(str, found))}")
        if found:
            return str(found[0])
    if folder.name == "checkpoints" and _is_model(folder / "best"):
        return str(folder / "best")
    if _is_folder(folder / "checkpoints"):
        raise ModelError(f"{name}: the run has no trained model yet; continue it with --resume, or name another model")
    runs = sorted(path for path in folder.iterdir() if _is_folder(path / "teachers"))
    if runs:
        raise ModelError(f"{name}: contains runs and is no model; name one of them, such as {runs[0]}")
    return name


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long or has a null byte
        return False


def _is_model(folder: Path) -> bool:
    return any((folder / file).exists() for file in ("config.json", "adapter_config.json"))
