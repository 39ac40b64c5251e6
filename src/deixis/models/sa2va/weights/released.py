"""Released Sa2VA folders (ByteDance/Sa2VA-*), read strictly and written back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.initialization import no_init_weights

from deixis.data.refer.conversation import SEG
from deixis.errors import ModelError
from deixis.models.builtin import resolve_model
from deixis.models.folders import model_folder, read_json, read_tokenizer, read_weights, reads_model, staged_folder
from deixis.models.model_configs import config_values, require_same_scale, statistics
from deixis.models.model_record import write_record
from deixis.models.sa2va.bundle import Sa2vaBundle
from deixis.models.sa2va.families.family import Released
from deixis.models.sa2va.families.table import family_of, released_family
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.pointing import points_first
from deixis.models.sa2va.weights.layout import gather, released_table, scatter
from deixis.models.sa2va.weights.sam_config import SAM_KEY, sam_config

RELEASED_TYPE = "sa2va_chat"
EXAMPLE = "ByteDance/Sa2VA-4B"
PREPROCESSOR = "preprocessor_config.json"
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]

FUSER_ALIAS = (".gamma", ".g_weight")
"""The memory's layer scale under SAM 2's own name and under Sa2VA's."""


@reads_model
def read_released(source: str | Path, tokenizer: str | Path | None = None) -> Sa2vaBundle:
    """Read a released Sa2VA, in evaluation mode, on the CPU, weights in the precision of the files.

    Args:
        source: a downloaded folder, or a hub id.
        tokenizer: folder or hub id of its tokenizer, where its own needs code to be run (InternLM 2's does).

    Raises:
        ModelError: it cannot be read, is of another kind, or has tensors missing, left over or misshapen; all of these
            are listed by their names in the files.
    """
    folder = model_folder(source, ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"), EXAMPLE)
    values = _released_values(folder)
    # Sa2VA's folders bring code for transformers (`auto_map`). None of it is run: the family below builds the same
    # network.
    family = released_family(values, folder)
    layout = family.released
    words = read_tokenizer(folder if tokenizer is None else model_folder(tokenizer, ("*",), "Qwen/Qwen2.5-0.5B"))
    template = layout.template(values, folder)
    state = {name.replace(*FUSER_ALIAS): tensor for name, tensor in read_weights(folder).items()}
    tied = output_is_embedding(values, state, layout)
    if tied:
        state = {name: tensor for name, tensor in state.items() if name not in layout.output_layers}
    vlm = layout.config(values, words.convert_tokens_to_ids(template.image_token), tied, str(source))
    sam = sam_config(values, state, str(source))
    # Built without memory first: sizes of a broken config.json must not fill the memory.
    require_same_scale(lambda: Sa2va(family.architecture(vlm), Sam2VideoModel(sam), 0), folder)
    model = _built(family.architecture, vlm, sam, words.convert_tokens_to_ids(SEG), state)
    wanted = {
        name: tensor for name, tensor in model.state_dict().items() if not (tied and name == "vlm.lm_head.weight")
    }
    tensors = gather(state, wanted, released_table(layout.rules(vlm)), layout.heads(vlm), str(source))
    # A tied output layer is left out above; `gather` has seen to all others.
    model.load_state_dict(tensors, strict=not tied)
    mean, std = pixel_statistics(folder, layout.statistics) if layout.preprocessor else layout.statistics
    return Sa2vaBundle(model.eval(), words, template, "sa2va", mean, std, source=str(source), blocks=layout.blocks(vlm))


def output_is_embedding(values: Mapping[str, Any], state: Mapping[str, Tensor], layout: Released) -> bool:
    """Whether one tensor is both: the file has no output layer, or config.json says so and the two are equal."""
    output = next((state[name] for name in layout.output_layers if name in state), None)
    if output is None:
        return True
    parts = (values, values.get("llm_config"), values.get("text_config"))
    said = any(isinstance(part, Mapping) and part.get("tie_word_embeddings") is True for part in parts)
    return said and any(torch.equal(output, state[name]) for name in layout.embeddings if name in state)


def pixel_statistics(folder: Path, default: Statistics) -> Statistics:
    """Mean and deviation of pixels, by the folder's own word or by default.

    Raises:
        ModelError: they are not three numbers each.
    """
    path = folder / PREPROCESSOR
    values = read_json(path) if path.exists() else {}
    values = values if isinstance(values, Mapping) else {}
    named = dict(zip(("image_mean", "image_std"), default, strict=True))
    return statistics({name: values.get(name, list(usual)) for name, usual in named.items()}, path)


def save_released(bundle: Sa2vaBundle, folder: str | Path, like: str | Path | None = None) -> None:
    """Write a segmenter as released ones are. SAM 2 must carry its memory (`Sam2VideoModel`).

    Args:
        like: a released folder, a run's folder with one, or a hub id, whose config.json and code are copied, so that
            Sa2VA's own code loads the result.

    Raises:
        ModelError: adapters are not merged, the layout has no place for the model, `like` is no released Sa2VA, or the
            folder cannot be written.
    """
    folder, model = Path(folder), bundle.model
    vlm, sam = model.vlm.config, model.sam.config
    require_released_form(bundle, folder)
    layout = family_of(vlm).released
    copied = () if like is None else _files_to_copy(like, ("*.py", "config.json", *layout.files))
    # Copies: released models tie nothing, and files would keep only one of two names of a tensor.
    state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    tensors = scatter(state, released_table(layout.rules(vlm)), layout.heads(vlm), str(folder))
    values = {**layout.values(vlm, bundle.template), SAM_KEY: sam.to_dict()}
    with staged_folder(folder) as aside:
        save_torch_state_dict({name: tensor.contiguous() for name, tensor in tensors.items()}, aside)
        bundle.tokenizer.save_pretrained(aside)
        write_record(aside, replace(bundle.record, task="segmenter"))
        (aside / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        if layout.preprocessor is not None:
            pixels = {"image_mean": bundle.tile_mean, "image_std": bundle.tile_std, **layout.preprocessor(vlm)}
            (aside / PREPROCESSOR).write_text(json.dumps(pixels, indent=2) + "\n", encoding="utf-8")
        for file in copied:
            # Last, so that its config.json, which names the code, replaces the one written above.
            shutil.copy(file, aside / file.name)


def _released_values(folder: Path) -> dict[str, Any]:
    """The config.json of a released Sa2VA.

    Raises:
        ModelError: it cannot be read, or is of another kind.
    """
    values = config_values(folder / "config.json")
    if values.get("model_type") != RELEASED_TYPE:
        raise ModelError(f"{folder / 'config.json'}: no released Sa2VA (model_type {RELEASED_TYPE!r})")
    return values


def _files_to_copy(like: str | Path, patterns: Sequence[str]) -> list[Path]:
    """The files of a released model, by its name, that the next one needs too; those of a hub id are downloaded.

    Raises:
        ModelError: there is no such folder, or it is no released Sa2VA.
    """
    folder = model_folder(resolve_model(like, "segmenter"), patterns, EXAMPLE)
    _released_values(folder)
    return [file for pattern in patterns for file in folder.glob(pattern)]


def require_released_form(bundle: Sa2vaBundle, place: str | Path) -> None:
    """See that a model without adapters can be written by `save_released`; nothing is copied.

    Args:
        place: what messages begin with.

    Raises:
        ModelError: the layout has no place for it.
    """
    model = bundle.model
    layout, vlm = model.family.released, model.vlm.config
    if model.sam.config.model_type != "sam2_video":
        raise ModelError(f"{place}: Sa2VA's layout holds SAM 2 with its memory, not this model without")
    if (bundle.blocks is None) != (layout.blocks(vlm) is None):
        raise ModelError(
            f"{place}: {model.family.name} has learnt from tiles here, and sees whole images in Sa2VA's code"
        )
    if points_first(model.sam):
        raise ModelError(f"{place}: prompts of this model point first, which Sa2VA's own code does not know")
    if model.spatial_token is not None:
        raise ModelError(f"{place}: regions of this model have spatial tokens, which Sa2VA's own code does not know")
    names = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}  # shapes without memory
    scatter(names, released_table(layout.rules(vlm)), layout.heads(vlm), str(place))


def _built(architecture: Any, vlm: Any, sam: Sam2VideoConfig, seg_token_id: int, state: Mapping[str, Tensor]) -> Sa2va:
    """The network without weights, in the precision of the files."""
    # Parameters are made in the precision of the file: a 26B model in float32 would need twice the memory of its
    # weights.
    precision = next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float32)
    before = torch.get_default_dtype()
    torch.set_default_dtype(precision)
    try:
        with no_init_weights():
            model = Sa2va(architecture(vlm), Sam2VideoModel(sam), seg_token_id)
        model.vlm.tie_weights()  # part of the initialisation that is left out above
        return model
    finally:
        torch.set_default_dtype(before)
