"""Names of tensors in transformers' files.

Files keep the names of transformers 4: on disk Swin's parts have other names than in the modules of transformers 5, and
tied tensors are stored under one of their names. Both sides are converted to the file's names and compared there, so
one table serves reading and writing, for every release in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deixis.errors import ModelError

BACKBONE = "model.backbone.conv_encoder.model."

SWIN_MODULE_TO_FILE = (
    (".model.swin.encoder.", ".model.encoder."),
    (".model.swin.embeddings.", ".model.embeddings."),
    (".attention.q_proj.", ".attention.self.query."),
    (".attention.k_proj.", ".attention.self.key."),
    (".attention.v_proj.", ".attention.self.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".attention.relative_position_bias.relative_position_bias_table", ".attention.self.relative_position_bias_table"),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)

DERIVED = ("relative_position_index", "text_backbone.embeddings.position_ids")
"""Suffixes of tensors in older files that are determined by the configuration."""

OPTIONAL = (BACKBONE + "swin.layernorm.", BACKBONE + "layernorm.")
"""Prefixes of tensors that files may lack, because no output depends on them."""


class Ties(NamedTuple):
    """Which heads are shared by all decoder layers."""

    boxes: bool
    classes: bool


def ties_of(config: Any) -> Ties:
    """The configuration's ties; Grounding DINO's class head has no parameters to share."""
    return Ties(config.decoder_bbox_embed_share, getattr(config, "decoder_cls_embed_share", True))


def file_name(name: str, ties: Ties) -> str:
    """The name in transformers' files, from a tensor's name in a module or in any file.

    >>> file_name("model.decoder.bbox_embed.3.layers.0.weight", Ties(boxes=True, classes=True))
    'bbox_embed.0.layers.0.weight'
    """
    if name.startswith(BACKBONE):
        for module, file in SWIN_MODULE_TO_FILE:
            name = name.replace(module, file)
        return name
    name = name.removeprefix("model.decoder.") if name.startswith(_DECODER_HEADS) else name
    for head, tied in (("bbox_embed.", ties.boxes), ("class_embed.", ties.classes)):
        if name.startswith(head) and tied:
            return ".".join((head + "0", *name.split(".")[2:]))
    return name


_DECODER_HEADS = ("model.decoder.bbox_embed.", "model.decoder.class_embed.")


def tensors_to_write(state: Mapping[str, Tensor], ties: Ties) -> dict[str, Tensor]:
    """A module's tensors by their names in the file, tied ones once, on the CPU."""
    # safetensors writes contiguous tensors only
    return {file_name(name, ties): tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def tensors_to_load(
    read: Mapping[str, Tensor], state: Mapping[str, Tensor], ties: Ties, *, source: str
) -> dict[str, Tensor]:
    """A file's tensors by their names in the module.

    Args:
        read: the file's tensors.
        state: the module's own tensors, which give the expected names and shapes.
        source: the file, for messages.

    Raises:
        ModelError: tensors are missing, unexpected, of another shape, or tied but different; all are listed.
    """
    given: dict[str, Tensor] = {}
    faults: list[str] = []
    for name, tensor in read.items():
        if name.endswith(DERIVED):
            continue
        canonical = file_name(name, ties)
        if not torch.equal(
            given.setdefault(canonical, tensor), tensor
        ):  # a file may have a tied tensor under several names
            faults.append(f"{name} differs from {canonical}, to which config.json ties it")
    wanted = {name: file_name(name, ties) for name in state}
    faults += [
        f"missing {name}" for name in sorted(set(wanted.values()) - given.keys()) if not name.startswith(OPTIONAL)
    ]
    faults += [f"unexpected {name}" for name in sorted(given.keys() - set(wanted.values()))]
    # an optional tensor that the file lacks keeps the module's value
    loadable = {name: given.get(file, state[name]) for name, file in wanted.items()}
    faults += [
        f"{wanted[name]} has shape {tuple(tensor.shape)}, config.json gives {tuple(state[name].shape)}"
        for name, tensor in loadable.items()
        if tensor.shape != state[name].shape
    ]
    if faults:
        raise ModelError(f"{source}: the weights do not fit the model ({len(faults)} faults): {'; '.join(faults)}")
    return loadable
