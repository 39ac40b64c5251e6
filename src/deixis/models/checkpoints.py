"""Detectors of any family: read by name (built-in, folder, hub id, adapter on one of these), written, described.

The only door to a family's room for what trains, predicts and converts detectors: they know a `DetectorBundle`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deixis.errors import ModelError
from deixis.models.adapters import CONFIG, base_of, load_adapter, merge
from deixis.models.builtin import model_of_run, resolve_model
from deixis.models.folders import reads_model
from deixis.models.grounding_dino import GroundingDinoBundle, load_grounding_dino, save_grounding_dino
from deixis.models.grounding_dino.compiling import BUCKET_PX, compile_layers
from deixis.models.grounding_dino.description import describe_config
from deixis.models.grounding_dino.weights.convert import (
    SUFFIXES,
    Checkpoint,
    build_bundle,
    read_checkpoint,
    save_checkpoint,
)
from deixis.models.model_record import ModelRecord, read_record

__all__ = [
    "BUCKET_PX",
    "SUFFIXES",
    "Checkpoint",
    "DetectorBundle",
    "build_bundle",
    "compile_layers",
    "describe_config",
    "load_any_detector",
    "read_checkpoint",
    "save_checkpoint",
    "save_detector",
]

DetectorBundle = GroundingDinoBundle
"""A detector with its tokenizer and image settings: the union of the bundles, once there is a second family."""

save_detector = save_grounding_dino


@reads_model
def load_any_detector(source: str | Path) -> DetectorBundle:
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
    for adapter in reversed(adapters):  # from the base outwards: each was trained on what is below it
        load_adapter(bundle.model, adapter)
        merge(bundle.model)
        own = read_record(adapter)
        record = record if own == ModelRecord() else own
    return replace(bundle, source=str(adapters[0]), record=record) if adapters else bundle
