"""Any detector by one name: built in, a folder, a hub id, or an adapter on top of one of these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deixis.errors import ModelError
from deixis.models.adapters import CONFIG, base_of, load_adapter, merge
from deixis.models.builtin import resolve_model
from deixis.models.grounding_dino import GroundingDinoBundle, load_grounding_dino


def load_any_detector(source: str | Path) -> GroundingDinoBundle:
    """A detector from `builtin`, a folder, a hub id, or a folder with an adapter, which is merged into its base.

    Raises:
        ModelError: nothing there that can be used, or an adapter that names no base.
    """
    if Path(source).is_file():
        raise ModelError(f"{source}: a file; turn it into a folder first: deixis model convert --model {source}")
    folder = Path(source)
    if not (folder / CONFIG).is_file():
        return load_grounding_dino(resolve_model(source))
    bundle = load_grounding_dino(resolve_model(base_of(folder)))
    load_adapter(bundle.model, source)
    merge(bundle.model)
    return replace(bundle, source=str(source))
