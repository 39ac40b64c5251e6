"""A segmenter from wherever it lies: the package, a folder of deixis, the released layout, or the hub."""

from __future__ import annotations

from pathlib import Path

from deixis.models.builtin import BUILTIN, builtin_segmenter_folder
from deixis.models.sa2va import Sa2vaBundle, load_sa2va


def load_any_segmenter(source: str | Path) -> Sa2vaBundle:
    """Read a segmenter.

    Raises:
        ModelError: nothing there, another kind of model, or weights that do not fit.
    """
    return load_sa2va(builtin_segmenter_folder() if str(source) == BUILTIN else source)
