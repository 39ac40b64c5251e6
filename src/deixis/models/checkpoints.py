"""Any detector by one name: built in, a folder, a hub id, or an adapter on top of one of these."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from deixis.errors import ModelError
from deixis.models.adapters import CONFIG, load_adapter, merge
from deixis.models.builtin import resolve_model
from deixis.models.grounding_dino import GroundingDinoBundle, load_grounding_dino


def load_any_detector(source: str | Path) -> GroundingDinoBundle:
    """A detector from `builtin`, a folder, a hub id, or a folder with an adapter, which is merged into its base.

    Raises:
        ModelError: nothing there that can be used, or an adapter that names no base.
    """
    if Path(source).is_file():
        raise ModelError(f"{source}: a file; turn it into a folder first: deixis model convert --model {source}")
    config = Path(source) / CONFIG
    if not config.is_file():
        return load_grounding_dino(resolve_model(source))
    try:
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{config}: cannot be read ({error}); is this an adapter folder?") from error
    if not base:
        raise ModelError(f"{config}: base_model_name_or_path names no model; write the base's folder or hub id there")
    bundle = load_grounding_dino(resolve_model(base))
    load_adapter(bundle.model, source)
    merge(bundle.model)
    return replace(bundle, source=str(source))
