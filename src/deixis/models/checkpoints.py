"""Detectors of any family: read by name (built-in, folder, hub id, adapter on one of these), written, described.

The only door to a family's room for what trains, predicts and converts detectors: they know a `DetectorBundle`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.adapters import CONFIG, base_of, load_adapter, merge
from deixis.models.builtin import model_of_run, resolve_model
from deixis.models.folders import reads_model
from deixis.models.grounding_dino import GroundingDinoBundle, load_grounding_dino, save_grounding_dino
from deixis.models.grounding_dino.sinks import MAX_SINKS, SinkKind, make_sinks, read_sinks, with_sinks, write_sinks
from deixis.models.grounding_dino.weights.convert import (
    SUFFIXES,
    Checkpoint,
    build_bundle,
    read_checkpoint,
    save_checkpoint,
)
from deixis.models.grounding_dino.weights.learned_names import train_learned_names, with_learned_names
from deixis.models.grounding_dino.weights.pretrained import plain_detector, plain_outputs
from deixis.models.grounding_dino.weights.recognise import describe_config
from deixis.models.model_record import ModelRecord, read_record
from deixis.models.onnx.exported import ExportedBundle, exported_record, load_exported
from deixis.models.onnx.runtimes import is_export

__all__ = [
    "MAX_SINKS",
    "SUFFIXES",
    "Checkpoint",
    "DetectorBundle",
    "SinkKind",
    "UsableDetector",
    "build_bundle",
    "chosen_sinks",
    "describe_config",
    "load_any_detector",
    "load_usable_detector",
    "make_sinks",
    "plain_detector",
    "plain_outputs",
    "read_checkpoint",
    "save_checkpoint",
    "save_detector",
    "stored_record",
    "train_learned_names",
    "trainable",
    "with_learned_names",
    "with_sinks",
    "write_sinks",
]

DetectorBundle = GroundingDinoBundle
"""A detector with its tokenizer and image settings: the union of the bundles, once there is a second family."""

UsableDetector = DetectorBundle | ExportedBundle
"""What predicts and cannot always be trained: a detector, or an exported file."""


def trainable(bundle: UsableDetector) -> DetectorBundle:
    """A detector that has weights.

    Raises:
        ModelError: an exported file.
    """
    if isinstance(bundle, ExportedBundle):
        raise ModelError(f"{bundle.source}: an exported file only predicts; name the model it is made from")
    return bundle


def chosen_sinks(bundle: UsableDetector, count: int | None) -> Float[Tensor, "sinks channels"] | None:
    """As many sinks of brackets; by default those of the model, with 0 none.

    Raises:
        ModelError: an exported file, in which they are built in.
    """
    if isinstance(bundle, ExportedBundle):
        if count is not None:
            raise ModelError(f"{bundle.source}: attention sinks are built into the file; leave out sinks")
        return None
    return bundle.sinks if count is None else make_sinks(bundle, count, "brackets") if count else None


def save_detector(bundle: DetectorBundle, folder: str | Path) -> None:
    """Write a detector so that deixis and transformers can read it; its sinks, which only deixis reads, beside it.

    Raises:
        ModelError: the folder cannot be written, or the model has adapters that are not merged.
    """
    save_grounding_dino(bundle, folder)
    write_sinks(Path(folder), bundle.sinks)


def load_usable_detector(source: str | Path, device: str = "cpu") -> UsableDetector:
    """A detector to predict with: see `load_any_detector`; or a file that `deixis model export` wrote.

    Args:
        device: for files, which choose their own runtime.

    Raises:
        ModelError: there is no usable model.
    """
    return load_exported(source, device) if is_export(source) else load_any_detector(source)


def stored_record(source: str | Path) -> ModelRecord:
    """The record of a model by its name, without loading it; empty for a hub id, or a folder without one.

    Raises:
        ModelError: the record cannot be read, or there is no one model.
    """
    if is_export(source):
        return exported_record(source)
    folder = Path(resolve_model(source))
    return read_record(folder) if folder.is_dir() else ModelRecord()


@reads_model
def load_any_detector(source: str | Path) -> DetectorBundle:
    """A detector from `builtin`, a folder, a run's folder, a hub id, or an adapter, which is merged into its base.

    Raises:
        ModelError: there is no usable model, or an adapter names no base.
    """
    if is_export(source):
        raise ModelError(f"{source}: an exported file only predicts; name the model it is made from")
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
    if adapters:
        bundle = replace(bundle, source=str(adapters[0]), record=record)
    folder = adapters[0] if adapters else Path(resolve_model(base))
    return replace(bundle, sinks=read_sinks(folder, bundle.model.config.d_model))
