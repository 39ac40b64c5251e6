"""Segmenters as folders, read and written in full or not at all.

config.json                   what this is: template, behaviour, how tiles are normalised
text_hidden_fcs.safetensors   from hidden states to prompts
spatial_token.safetensors     from outlines to tokens, where regions have spatial tokens
vlm/                          the vision-language model and its tokenizer, as transformers writes them
sam/                          SAM 2, as transformers writes it
deixis.json                   the record (see `model_record`), with the presence threshold where one was fitted

`InternVLForConditionalGeneration.from_pretrained(folder / "vlm")` and `Sam2Model.from_pretrained(folder / "sam")` read
the two halves.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from deixis.data.pixels.cuts import Blocks
from deixis.errors import ModelError
from deixis.models.builtin import resolve_model
from deixis.models.folders import model_folder, read_json, read_tokenizer, reads_model, staged_folder
from deixis.models.model_configs import read_transformers_config, require_same_scale, statistics
from deixis.models.model_record import read_record, write_record
from deixis.models.sa2va.bundle import Sa2vaBundle, sam_class
from deixis.models.sa2va.families.table import family_of
from deixis.models.sa2va.language.templates import Template
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.weights.released import EXAMPLE, RELEASED_TYPE, read_released
from deixis.text import one_line

MODEL_TYPE = "deixis_sa2va"
VLM, SAM, CONFIG, PROJECTION = "vlm", "sam", "config.json", "text_hidden_fcs.safetensors"
SPATIAL = "spatial_token.safetensors"
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md")  # the card has the licence


@reads_model
def load_sa2va(source: str | Path, *, tokenizer: str | Path | None = None) -> Sa2vaBundle:
    """Read a segmenter, in evaluation mode, on the CPU.

    Args:
        source: a folder written by `save_sa2va`, a released Sa2VA (see `read_released`), a hub id of either, or
            `builtin` for the small one in the package.
        tokenizer: folder or hub id of a released Sa2VA's tokenizer, where its own cannot be used.

    Raises:
        ModelError: a tokenizer for a model that is not released, nothing there, another kind of model, or a tensor
            missing, left over or misshapen.
    """
    folder = model_folder(resolve_model(source, "segmenter"), HUB_FILES, EXAMPLE)
    values = read_json(folder / CONFIG)
    kind = values.get("model_type") if isinstance(values, Mapping) else None
    if kind == RELEASED_TYPE:
        bundle = read_released(folder, tokenizer)
        return dataclasses.replace(bundle, source=str(source), record=read_record(folder))
    if kind != MODEL_TYPE:
        raise ModelError(f"{folder / CONFIG}: model_type is {kind!r}, expected {MODEL_TYPE!r} or {RELEASED_TYPE!r}")
    if tokenizer is not None:
        raise ModelError(f"{tokenizer}: {folder} has a tokenizer in {VLM}/; another is for released Sa2VA folders only")
    template = template_of(values, folder)
    try:
        behaviour, seg_token_id = values["behaviour"], int(values["seg_token_id"])
        mean, std = statistics(values, folder / CONFIG, "tile")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG}: incomplete ({error!r}); write the model again") from error
    model = Sa2va(read_vlm(folder / VLM), read_sam(folder / SAM), seg_token_id)
    _fill(model.text_hidden_fcs, folder / PROJECTION)
    if values.get("spatial_token", False):
        model.add_spatial_token()
        _fill(model.spatial_token, folder / SPATIAL)
    words, record, blocks = read_tokenizer(folder / VLM), read_record(folder), blocks_of(values, folder)
    return Sa2vaBundle(model.eval(), words, template, behaviour, mean, std, str(source), record, blocks)


def blocks_of(values: Mapping[str, Any], folder: Path) -> Blocks | None:
    """How a folder's model takes images whole; None where it takes tiles.

    Raises:
        ModelError: values that no images fit.
    """
    if values.get("blocks") is None:
        return None
    try:
        blocks = Blocks(**values["blocks"])
        # A file's numbers decide how much memory a picture takes: bounded before any picture is cut.
        if not (4 <= blocks.square_px <= 256 and blocks.square_px**2 <= blocks.min_pixels <= blocks.max_pixels <= 1e8):
            raise ValueError("sizes that no image fits")
        return blocks
    except (TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG}: blocks cannot be used ({error}); write the model again") from error


def template_of(values: Mapping[str, Any], folder: Path) -> Template:
    """The way to write conversations that a folder names.

    Raises:
        ModelError: it names none.
    """
    try:
        return Template(**{**values["template"], "user": tuple(values["template"]["user"])})  # JSON has no tuples
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder / CONFIG}: incomplete ({error!r}); write the model again") from error


def save_sa2va(bundle: Sa2vaBundle, folder: str | Path) -> None:
    """Write a segmenter so that `load_sa2va` reads it, and transformers its two halves.

    Every file is complete before it takes its name; other files in the folder stay.

    Raises:
        ModelError: the folder cannot be written, or the model carries adapters or new rows that are not merged.
    """
    folder, model = Path(folder), bundle.model
    apart = [name for name, _ in model.named_parameters() if ".lora_" in name or name.startswith("token_rows.")]
    if apart:
        raise ModelError(f"{folder}: the model carries adapters ({apart[0]}, ...); merge them before saving it")
    values = {
        "model_type": MODEL_TYPE,
        "behaviour": bundle.behaviour,
        "seg_token_id": bundle.seg_token_id,
        "template": dataclasses.asdict(bundle.template),
        "tile_mean": list(bundle.tile_mean),
        "tile_std": list(bundle.tile_std),
        "spatial_token": model.spatial_token is not None,
        "blocks": None if bundle.blocks is None else dataclasses.asdict(bundle.blocks),
    }
    with staged_folder(folder) as aside, _quiet():
        write_record(aside, dataclasses.replace(bundle.record, task="segmenter"))
        model.vlm.save_pretrained(aside / VLM)
        bundle.tokenizer.save_pretrained(aside / VLM)
        model.sam.save_pretrained(aside / SAM)
        _keep(model.text_hidden_fcs, aside / PROJECTION)
        if model.spatial_token is not None:
            _keep(model.spatial_token, aside / SPATIAL)
        (aside / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


@reads_model
def read_vlm(folder: Path) -> Any:
    """A vision-language model of transformers, with its output layer.

    Raises:
        ModelError: another kind of model, or one that does not fit its configuration.
    """
    config = read_config(folder)
    return _read(family_of(config).architecture, config, folder)


@reads_model
def read_sam(folder: Path) -> Any:
    """SAM 2 of transformers; with its memory where the folder has it.

    Raises:
        ModelError: another kind of model, or one that does not fit its configuration.
    """
    config = read_config(folder)
    return _read(sam_class(config), config, folder)


def read_config(folder: Path) -> Any:
    """The configuration of transformers in a folder.

    Raises:
        ModelError: there is none, or it is none of transformers' own.
    """
    return read_transformers_config(folder / CONFIG)


def _read(architecture: Any, config: Any, folder: Path) -> Any:
    """A model, every tensor of which is in the folder, and no other."""
    if (folder / "adapter_config.json").exists():  # transformers would follow it to another model
        raise ModelError(f"{folder}: holds an adapter; merge it into its model first, or remove adapter_config.json")
    require_same_scale(lambda: architecture(config), folder)
    with _quiet():
        try:
            model, report = architecture.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype="auto",
                output_loading_info=True,
            )
        except Exception as error:  # a missing or damaged file, or tensors of another shape
            raise ModelError(f"{folder}: cannot be read ({one_line(error, 300)})") from error
    faults = [f"missing {name}" for name in sorted(report["missing_keys"])]
    faults += [f"unexpected {name}" for name in sorted(report["unexpected_keys"])]
    if faults:
        raise ModelError(f"{folder}: the weights do not fit the model ({len(faults)} faults): {'; '.join(faults)}")
    return model


def _fill(module: Any, path: Path) -> None:
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be read ({one_line(error, 300)})") from error


def _keep(module: Any, path: Path) -> None:
    state = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and tables."""
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
