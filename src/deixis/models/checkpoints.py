"""Loading any detector by name: built-in, a folder, a hub id, or an adapter on one of these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deixis.errors import ModelError
from deixis.models.adapters import CONFIG, base_of, load_adapter, merge
from deixis.models.builtin import model_of_run, resolve_model
from deixis.models.folders import reads_model
from deixis.models.grounding_dino import GroundingDinoBundle, load_grounding_dino
from deixis.models.model_record import ModelRecord, read_record


@reads_model
def load_any_detector(source: str | Path) -> GroundingDinoBundle:
    """A detector from `builtin`, a folder, a run's folder, a hub id, or an adapter, which is merged into its base.

    Raises:
        ModelError: there is no usable model, or an adapter names no base.
    """
    if Path(source).is_file():
        raise ModelError(f"{source}: is a file; convert it to a folder first: deixis model convert --model {source}")
    adapters: list[Path] = []  # from the outermost inwards; an adapter's base may be an adapter
    base = model_of_run(source)
    while (Path(base) / CONFIG).is_file():
        adapters.append(Path(base))
        base = model_of_run(base_of(adapters[-1]))
        if Path(base) in adapters:
            raise ModelError(f"{adapters[-1] / CONFIG}: the adapters name each other as base; name a complete model")
    try:
        bundle = load_grounding_dino(resolve_model(base))
    except ModelError as error:
        if not adapters:
            raise
        raise ModelError(f"{adapters[-1] / CONFIG}: base_model_name_or_path: {error}") from error
    record = bundle.record
    for adapter in reversed(adapters):
        load_adapter(bundle.model, adapter)
        merge(bundle.model)
        own = read_record(adapter)
        record = record if own == ModelRecord() else own
    return replace(bundle, source=str(adapters[0]), record=record) if adapters else bundle
