"""Released Sa2VA folders (ByteDance/Sa2VA-*, InternVL kind), read strictly and written back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import InternVLForConditionalGeneration, Sam2VideoModel
from transformers.initialization import no_init_weights

from deixis.data.refer.conversation import SEG
from deixis.errors import ModelError
from deixis.models.folders import model_folder, read_tokenizer, read_weights, reads_model, staged_folder
from deixis.models.model_configs import config_values, require_same_scale
from deixis.models.model_record import write_record
from deixis.models.sa2va.bundle import Sa2vaBundle
from deixis.models.sa2va.language.templates import TEMPLATES, Template
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.pointing import points_first
from deixis.models.sa2va.weights.config import heads_of, language_of, released_values, sam_config, vlm_config
from deixis.models.sa2va.weights.layout import INTERNLM2, gather, released_table, scatter

RELEASED_TYPE = "sa2va_chat"
TEMPLATE_NAMES = {"qwen_chat": "chatml", "internlm2_chat": "chatml", "phi3_chat": "phi3"}
"""Sa2VA's names for templates to ours."""

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
    folder = model_folder(source, ("*.json", "*.safetensors", "*.txt", "*.model"), "ByteDance/Sa2VA-4B")
    values = config_values(folder / "config.json")
    if values.get("model_type") != RELEASED_TYPE or not isinstance(values.get("llm_config"), Mapping):
        raise ModelError(f"{folder / 'config.json'}: no Sa2VA of the InternVL kind (model_type {RELEASED_TYPE!r})")
    words = read_tokenizer(folder if tokenizer is None else model_folder(tokenizer, ("*",), "Qwen/Qwen2.5-0.5B"))
    template = released_template(values)
    state = {name.replace(*FUSER_ALIAS): tensor for name, tensor in read_weights(folder).items()}
    language = language_of(values, str(source))
    tied = not any(name in state for name in ("language_model.lm_head.weight", "language_model.output.weight"))
    vlm = vlm_config(values, words.convert_tokens_to_ids(template.image_token), tied, str(source))
    if language == INTERNLM2:
        vlm.text_config.released_architecture = language  # to be written back the same
    sam = sam_config(values, state, str(source))
    require_same_scale(lambda: Sa2va(InternVLForConditionalGeneration(vlm), Sam2VideoModel(sam), 0), folder)
    model = _built(vlm, sam, words.convert_tokens_to_ids(SEG), state)
    wanted = {
        name: tensor for name, tensor in model.state_dict().items() if not (tied and name == "vlm.lm_head.weight")
    }
    tensors = gather(state, wanted, released_table(language), heads_of(vlm.text_config), str(source))
    model.load_state_dict(tensors, strict=not tied)
    return Sa2vaBundle(model.eval(), words, template, "sa2va", source=str(source))


def released_template(values: Mapping[str, Any]) -> Template:
    """The way to write conversations that a released configuration names."""
    return TEMPLATES[TEMPLATE_NAMES.get(str(values.get("template")), "chatml")]


def save_released(bundle: Sa2vaBundle, folder: str | Path, like: str | Path | None = None) -> None:
    """Write a segmenter as released ones are. SAM 2 must carry its memory (`Sam2VideoModel`).

    Args:
        like: a released folder whose config.json and code are copied, so that Sa2VA's own code loads the result.

    Raises:
        ModelError: adapters are not merged, the layout has no place for the model, or the folder cannot be written.
    """
    folder, model = Path(folder), bundle.model
    vlm, sam = model.vlm.config, model.sam.config
    require_released_form(bundle, folder)
    language = _language(vlm.text_config)
    # Copies: released models tie nothing, and files would keep only one of two names of a tensor.
    state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    tensors = scatter(state, released_table(language), heads_of(vlm.text_config), str(folder))
    template = next((theirs for theirs, ours in TEMPLATE_NAMES.items() if ours == bundle.template.name), "qwen_chat")
    values = released_values(vlm, sam, language, "internlm2_chat" if language == INTERNLM2 else template)
    with staged_folder(folder) as aside:
        save_torch_state_dict({name: tensor.contiguous() for name, tensor in tensors.items()}, aside)
        bundle.tokenizer.save_pretrained(aside)
        write_record(aside, replace(bundle.record, task="segmenter"))
        (aside / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        if like is not None:
            for file in [*Path(like).glob("*.py"), Path(like) / "config.json"]:
                shutil.copy(file, aside / file.name)


def require_released_form(bundle: Sa2vaBundle, place: str | Path) -> None:
    """See that a model without adapters can be written by `save_released`; nothing is copied.

    Args:
        place: what messages begin with.

    Raises:
        ModelError: the layout has no place for it.
    """
    model = bundle.model
    if model.vlm.config.model_type != "internvl" or model.sam.config.model_type != "sam2_video":
        raise ModelError(f"{place}: Sa2VA's layout holds InternVL and SAM 2 with its memory, not this model")
    if points_first(model.sam):
        raise ModelError(f"{place}: prompts of this model point first, which Sa2VA's own code does not know")
    if model.spatial_token is not None:
        raise ModelError(f"{place}: regions of this model have spatial tokens, which Sa2VA's own code does not know")
    text = model.vlm.config.text_config
    names = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}  # shapes without memory
    scatter(names, released_table(_language(text)), heads_of(text), str(place))


def _built(vlm: Any, sam: Any, seg_token_id: int, state: Mapping[str, Tensor]) -> Sa2va:
    """The network without weights, in the precision of the files."""
    precision = next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float32)
    before = torch.get_default_dtype()
    torch.set_default_dtype(precision)
    try:
        with no_init_weights():
            return Sa2va(InternVLForConditionalGeneration(vlm), Sam2VideoModel(sam), seg_token_id)
    finally:
        torch.set_default_dtype(before)


def _language(text_config: Any) -> str:
    """The architecture that config.json names."""
    written = getattr(text_config, "released_architecture", None)
    if written:
        return str(written)
    names = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
    return names.get(text_config.model_type, str(text_config.model_type))
