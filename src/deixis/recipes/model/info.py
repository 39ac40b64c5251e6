"""What a model is, in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deixis.console import print_text
from deixis.models.adapters import CONFIG
from deixis.models.builtin import BUILTIN
from deixis.models.checkpoints import (
    SUFFIXES,
    Checkpoint,
    DetectorBundle,
    describe_config,
    detector_folder,
    load_any_detector,
    read_checkpoint,
)
from deixis.models.edits.files import task_files
from deixis.models.folders import read_object
from deixis.models.freezing import parameter_table
from deixis.models.model_record import ModelRecord
from deixis.models.onnx.exported import ExportedBundle, load_exported
from deixis.models.onnx.runtimes import is_export
from deixis.models.sa2va import load_sa2va
from deixis.models.sa2va.weights.pretrained import MODEL_TYPE
from deixis.models.text import learned_names
from deixis.options.model_info import ModelInfoOptions
from deixis.recipes.model.segmenter import layout_of, segmenter_lines
from deixis.text import listed


def model_info(options: ModelInfoOptions) -> None:
    """Print what a model is.

    Raises:
        DeixisError: nothing there that can be used.
    """
    options.check()
    if Path(options.model).suffix in SUFFIXES and not Path(options.model).is_dir():
        lines = checkpoint_lines(read_checkpoint(options.model), options.model)
    elif is_export(options.model):
        lines = export_lines(load_exported(options.model), options.model)
    elif options.model == BUILTIN:
        lines = ["detector", *bundle_lines(load_any_detector(BUILTIN), BUILTIN), ""]
        lines += ["segmenter", *segmenter_lines(load_sa2va(BUILTIN), MODEL_TYPE, BUILTIN)]
    elif layout := layout_of(options.model):
        lines = segmenter_lines(load_sa2va(options.model), layout, options.model)
    else:
        lines = bundle_lines(load_any_detector(options.model), options.model)
    print_text("\n".join(lines))


def checkpoint_lines(checkpoint: Checkpoint, source: str) -> list[str]:
    """What a foreign checkpoint was recognised as, and what in it has no use here."""
    count = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    uses = Counter(checkpoint.left_out.values())
    lines = [
        f"{source}: layout of {checkpoint.layout}, all {len(checkpoint.tensors)} tensors placed, {count:,} parameters",
        *describe_config(checkpoint.config),
        f"left out     {len(checkpoint.left_out)} tensors" + (":" if uses else ""),
    ]
    for use in uses:
        names = [name for name, why in checkpoint.left_out.items() if why == use]
        lines.append(f"  {use}: {', '.join(names)}")
    return [*lines, "tokenizer    none; name one with --tokenizer when converting (bert-base-uncased)"]


def export_lines(bundle: ExportedBundle, source: str) -> list[str]:
    """What an exported file is asked for, and what it is given."""
    short_px, long_px = bundle.image_size
    return [
        f"{source}: exported detector of {bundle.model.queries} queries",
        f"asked for    {listed(bundle.model.fixed, 12) or 'any names: they are an input'}",
        f"image size   shorter side {short_px} px, longest {long_px} px",
        f"mean, std    {numbers(bundle.mean)}, {numbers(bundle.std)}",
        *record_lines(bundle.record),
    ]


def bundle_lines(bundle: DetectorBundle, source: str) -> list[str]:
    """What a detector is, part by part."""
    table = parameter_table(bundle.model)
    total = sum(row.total for row in table)
    lines = [f"{source}: {total:,} parameters", *describe_config(bundle.model.config)]
    lines += [f"  {row.part:<10} {row.total:>13,} parameters" for row in table]
    short_px, long_px = bundle.image_size
    lines += [
        f"tokenizer    {type(bundle.tokenizer).__name__}, {len(bundle.tokenizer):,} tokens",
        f"image size   shorter side {short_px} px, longest {long_px} px",
        f"mean, std    {numbers(bundle.mean)}, {numbers(bundle.std)}",
    ]
    lines += record_lines(bundle.record)
    if own := learned_names(bundle.tokenizer):
        lines.append(f"own tokens   {listed(list(own), 12)}; written <{next(iter(own))}> in plain transformers")
    folder = detector_folder(source)
    if tasks := task_files(folder):
        lines.append(f"edits        {listed(list(tasks), 12)}")
    adapter = folder / CONFIG
    return [*lines, *adapter_lines(read_object(adapter))] if adapter.is_file() else lines


def record_lines(record: ModelRecord) -> list[str]:
    """What a folder says of its model: the pictures it knows, its names and thresholds."""
    knows = {"generated": "generated shapes only", "photographs": "photographs", "unknown": "not recorded"}
    lines = [f"trained on   {knows[record.domain]}"]
    if record.names:
        lines.append(f"names        {listed(record.names, 12)}")
    lines += [f"wordings     {name}: {listed(words, 12)}" for name, words in record.wordings.items()]
    if record.sinks.get("count"):
        lines.append(
            f"sinks        {record.sinks['count']} of kind {record.sinks.get('kind')}; plain transformers has none"
        )
    lines += [f"threshold    {name} {value:g}" for name, value in record.thresholds.items()]
    return lines


def adapter_lines(values: dict[str, Any]) -> list[str]:
    """An adapter's rank, scale and base."""
    base = values.get("base_model_name_or_path")
    return [f"adapter      LoRA of rank {values.get('r')}, alpha {values.get('lora_alpha')}, on {base}; merged above"]


def numbers(values: Iterable[float]) -> str:
    """A few numbers in a row."""
    return " ".join(f"{value:.3f}" for value in values)
