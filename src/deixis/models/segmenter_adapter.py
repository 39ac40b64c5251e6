"""What trained of a segmenter, without what it started from: LoRA on its language model in PEFT's own files.

adapter_config.json, adapter_model.safetensors   for `PeftModel.from_pretrained(vlm, folder)`
trained_parts.safetensors                        what trained whole, by its name in `Sa2va`, and the new tokens' rows
deixis.json, README.md                           as of any model
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from deixis.errors import ModelError
from deixis.models.adapters import ADAPTER, CONFIG, base_of, load_adapter, merge, write_adapter
from deixis.models.folders import reads_model, staged_folder
from deixis.models.model_record import read_record
from deixis.models.sa2va import Sa2vaBundle, freeze, load_sa2va, merge_adapters
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.parts import LORA_PATTERN
from deixis.text import one_line

TRAINED_PARTS = "trained_parts.safetensors"
ROWS = "token_rows."


def is_segmenter_adapter(folder: str | Path) -> bool:
    """Whether a folder holds what `save_segmenter_adapter` writes."""
    return (Path(folder) / CONFIG).is_file() and (Path(folder) / TRAINED_PARTS).is_file()


def save_segmenter_adapter(bundle: Sa2vaBundle, folder: str | Path, base: str) -> None:
    """Write what trains of a segmenter with adapters, all or nothing.

    Its tensors are read where they are; nothing is merged.

    Args:
        base: folder or hub id of what it started from.

    Raises:
        ModelError: it has no adapters, or the folder cannot be written.
    """
    model = bundle.model
    trained = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        # of the rows also the buffer with their token ids, by which they are put back
        if ".lora_" not in name and (name.startswith(ROWS) or tensor.requires_grad)
    }
    with _as_adapted(model) as vlm, staged_folder(Path(folder)) as draft:
        write_adapter(vlm, draft, base)
        save_file(trained, draft / TRAINED_PARTS, metadata={"format": "pt", "behaviour": bundle.behaviour})


@reads_model
def load_adapted_segmenter(folder: str | Path) -> Sa2vaBundle:
    """The base of an adapter with the adapter merged and the trained parts in place, in evaluation mode on the CPU.

    Raises:
        ModelError: base or adapter cannot be read, or they do not fit.
    """
    folder = Path(folder)
    base = load_sa2va(base_of(folder))
    model = base.model
    load_adapter(model.vlm, folder)
    merge(model.vlm)
    try:
        trained = load_file(folder / TRAINED_PARTS)
        with safe_open(folder / TRAINED_PARTS, "pt") as file:
            behaviour = (file.metadata() or {}).get("behaviour")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / TRAINED_PARTS}: cannot be read ({one_line(error, 200)})") from error
    if behaviour not in ("deixis", "sa2va"):
        raise ModelError(f"{folder / TRAINED_PARTS}: behaviour is {behaviour!r}, expected 'deixis' or 'sa2va'")
    if f"{ROWS}token_ids" in trained:
        # makes room for the new tokens' rows, whose values `trained` has
        freeze(model, ("embeddings",), lora=False, new_token_ids=trained[f"{ROWS}token_ids"].tolist())
    own = model.state_dict()
    faults = [name for name, tensor in trained.items() if name not in own or own[name].shape != tensor.shape]
    if faults:
        raise ModelError(
            f"{folder}: the adapter does not fit {base.source}: {', '.join(faults[:5])}; name its own base"
        )
    # all others keep the base's values; `faults` has found unknown names and wrong shapes
    model.load_state_dict(trained, strict=False)
    merge_adapters(model)
    return replace(base, model=model.requires_grad_(True).eval(), behaviour=behaviour, record=read_record(folder))


@contextmanager
def _as_adapted(model: Sa2va) -> Iterator[Any]:
    """The vision-language model with the adapters' configuration as if they had been added to it alone."""
    config = model.__dict__.get("peft_config", {}).get(ADAPTER)
    if config is None:
        raise ModelError("the segmenter has no adapters to save; save the whole model instead")
    inner = copy.copy(config)
    # PEFT matches names from the model that is adapted, here the VLM itself
    inner.target_modules = LORA_PATTERN.removeprefix(r"vlm\.")
    model.vlm.__dict__["peft_config"] = {ADAPTER: inner}
    try:
        yield model.vlm
    finally:
        del model.vlm.__dict__["peft_config"]
