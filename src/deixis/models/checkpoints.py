"""Detectors of any family: read by name (built-in, folder, hub id, adapter on one of these), written, described.

The only door to a family's room for what trains, predicts and converts detectors: they know a `DetectorBundle`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.adapters import CONFIG, base_of, load_adapter, merge
from deixis.models.builtin import resolve_model
from deixis.models.folders import is_hub_id, leaving_long_names, model_folder, reads_model
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
from deixis.models.grounding_dino.weights.pretrained import EXAMPLE, HUB_FILES, plain_detector, plain_outputs
from deixis.models.grounding_dino.weights.recognise import describe_config
from deixis.models.model_record import RECORD_FILE, ModelRecord, read_record
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
    "detector_folder",
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
    """The record of a model by its name, without loading it; of a hub id, it alone is downloaded.

    It is empty where there is none, or nothing can be downloaded: that is for `load_any_detector` to report.

    Raises:
        ModelError: the record cannot be read, or there is no one model.
    """
    if is_export(source):
        return exported_record(source)
    folder = Path(resolve_model(source))
    if isinstance(source, str) and is_hub_id(source):
        with suppress(ModelError):
            folder = model_folder(source, [RECORD_FILE], EXAMPLE)
    return read_record(folder) if folder.is_dir() else ModelRecord()


def detector_folder(source: str | Path) -> Path:
    """The folder with the files of a detector or an adapter by its name; those of a hub id are downloaded.

    Raises:
        ModelError: there is none, or no one model.
    """
    return model_folder(resolve_model(source), HUB_FILES, EXAMPLE)


@reads_model
def load_any_detector(source: str | Path) -> DetectorBundle:
    """A detector from `builtin`, a folder, a run's folder, a hub id, or an adapter, which is merged into its base.

    Raises:
        ModelError: there is no usable model, or an adapter names no base.
    """
    if is_export(source):
        raise ModelError(f"{source}: an exported file only predicts; name the model it is made from")
    with leaving_long_names():
        if Path(source).is_file():
            hint = f"convert it to a folder first: deixis model convert --model {source}"
            raise ModelError(f"{source}: is a file; {hint}")
    folder = detector_folder(source)
    adapters: list[Path] = []  # from the outermost inwards; an adapter's base may be an adapter
    base = folder
    while (base / CONFIG).is_file():
        adapters.append(base)
        with _naming_base(adapters):
            base = detector_folder(base_of(base))
        if base in adapters:
            raise ModelError(f"{adapters[-1] / CONFIG}: the adapters name each other as base; name a complete model")
    with _naming_base(adapters):
        bundle = load_grounding_dino(base)
    record = bundle.record
    for adapter in reversed(adapters):  # from the base outwards: each was trained on what is below it
        load_adapter(bundle.model, adapter)
        merge(bundle.model)
        own = read_record(adapter)
        record = record if own == ModelRecord() else own
    sinks = read_sinks(folder, bundle.model.config.d_model)
    return replace(bundle, source=str(resolve_model(source)), record=record, sinks=sinks)


@contextmanager
def _naming_base(adapters: Sequence[Path]) -> Iterator[None]:
    """A block that reads the base of the last of these adapters, if there is one: errors say where it is named."""
    try:
        yield
    except ModelError as error:
        if not adapters:
            raise
        raise ModelError(f"{adapters[-1] / CONFIG}: base_model_name_or_path: {error}") from error
