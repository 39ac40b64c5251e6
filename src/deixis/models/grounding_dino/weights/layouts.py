"""Checkpoints in other projects' layouts, converted completely or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.grounding_dino.weights.key_tables import idea_table, mmdetection_table
from deixis.models.grounding_dino.weights.recognise import Names, decoder_layer_count
from deixis.models.grounding_dino.weights.transformers_layout import OPTIONAL, Ties, file_name
from deixis.models.weight_files import KeyTable, Place

# These files have the heads of every layer, also where all are equal.
UNTIED = Ties(boxes=False, classes=False)
PIXEL_ORDER = (0, 2, 1, 3)
"""The permutation between the two orders of the four pixels that Swin merges; it is its own inverse."""


class Layout(NamedTuple):
    """How a project writes its checkpoints.

    Attributes:
        name: of the project.
        signs: prefixes of names that only its files have.
        top_key: the key of the weights in the file.
        left_out: patterns of names that the detector does not use, and what they are.
    """

    name: str
    signs: tuple[str, ...]
    top_key: str
    left_out: Mapping[str, str]


IDEA = Layout(
    "idea",
    ("transformer.", "backbone.0."),
    "model",
    {
        r".*relative_position_index": "follows from the window size",
        r"bert\.embeddings\.position_ids": "counts up",
        r"bert\.pooler\..*": "not used",
        r"label_enc\.weight": "for denoising queries in training",
    },
)
MMDETECTION = Layout(
    "mmdetection",
    ("bbox_head.", "neck.", "language_model."),
    "state_dict",
    {
        r".*relative_position_index": "follows from the window size",
        r"language_model\..*\.position_ids": "counts up",
        r"language_model\..*\.pooler\..*": "not used",
        r"dn_query_generator\..*": "for denoising queries in training",
        r"lmm.*": "LLMDet's language model, for training",
        r"(region_)?connector.*": "to LLMDet's language model, for training",
        r"image_seperate.*": "to LLMDet's language model, for training",
        r"ref_point_head.*": "not used",
    },
)
LAYOUTS = {layout.name: layout for layout in (IDEA, MMDETECTION)}


def recognise_layout(names: Mapping[str, Any], source: str) -> Layout:
    """The project whose layout has these names.

    Raises:
        ModelError: it is none of the known layouts.
    """
    for layout in LAYOUTS.values():
        if all(any(name.startswith(sign) for name in names) for sign in layout.signs):
            return layout
    if any(name.startswith("model.backbone.conv_encoder.") for name in names):
        raise ModelError(f"{source}: weights of transformers without their config.json; name their folder")
    some = ", ".join(list(names)[:3])
    raise ModelError(
        f"{source}: the tensor names ({some}, ...) fit no known layout; expected a Grounding DINO checkpoint of "
        "IDEA-Research or MMDetection"
    )


def table_of(layout: Layout, state: Mapping[str, Tensor], source: str) -> KeyTable:
    """The layout's rules for one checkpoint."""
    if layout is IDEA:
        return idea_table()
    convs = [int(match[1]) for name in state if (match := re.match(r"neck\.convs\.(\d+)\.", name))]
    # the layers' own names depend on neither number
    layers = decoder_layer_count(Names(state, mmdetection_table(0, 0), source))
    return mmdetection_table(1 + max(convs, default=-1), layers)


class Gathered(NamedTuple):
    """A checkpoint with the names of transformers' files.

    Attributes:
        tensors: all that the detector needs.
        left_out: the file's unused tensors, and what they are.
    """

    tensors: dict[str, Tensor]
    left_out: dict[str, str]


def gather(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: Layout, *, table: KeyTable, source: str
) -> Gathered:
    """Rename and reshape every tensor of a checkpoint.

    Args:
        state: the checkpoint.
        wanted: the detector's own tensors; only their names and shapes are used.
        source: the checkpoint's file, for messages.

    Raises:
        ModelError: tensors are missing, unexpected, of another shape, or stored twice with different values; all are
            listed by their names in the checkpoint.
    """
    tensors: dict[str, Tensor] = {}
    faults: dict[str, None] = {}  # an ordered set: the three parts of one tensor give the same fault
    used: set[str] = set()
    for own, like in wanted.items():
        name = file_name(own, UNTIED)
        place = table.place(name)
        if place is None:
            if not name.startswith(OPTIONAL):
                faults[f"no place for {name} in this layout"] = None
            continue
        found = [key for key in (place.key, place.copy) if key in state]
        used.update(found)
        if not found:
            faults[f"missing {place.key}"] = None
            continue
        if len(found) == 2 and not torch.equal(state[found[0]], state[found[1]]):
            faults[f"{found[1]} differs from {found[0]}"] = None
        tensor = from_stored_form(state[found[0]], place)
        if tensor.shape == like.shape:
            tensors[name] = tensor
        else:
            shape, parts = tuple(state[found[0]].shape), " for a third" if place.form == "third" else ""
            faults[f"{found[0]} has shape {shape}, expected {tuple(like.shape)}{parts}"] = None
    left_out = {name: use for name in state if name not in used and (use := _use(name, layout))}
    faults |= dict.fromkeys(f"unexpected {name}" for name in sorted(state.keys() - used - left_out.keys()))
    if faults:
        raise ModelError(f"{source}: the weights do not fit the model ({len(faults)} faults): {'; '.join(faults)}")
    return Gathered(tensors, left_out)


def _use(name: str, layout: Layout) -> str | None:
    return next((use for pattern, use in layout.left_out.items() if re.fullmatch(pattern, name)), None)


def from_stored_form(tensor: Tensor, place: Place) -> Tensor:
    """A tensor in the form used here, from its form in the file."""
    if place.form == "third":
        return tensor.tensor_split(3)[place.part]  # [3 d, ...] -> [d, ...]
    if place.form == "one" and tensor.shape == (1,):
        return tensor[0]
    if place.form == "unfolded":
        # the reduction is [2 C, 4 C], the norm [4 C]: both are reordered along their last axis
        by_channel = tensor.reshape(*tensor.shape[:-1], -1, 4)[..., PIXEL_ORDER]  # [..., channels, pixels]
        return by_channel.transpose(-1, -2).flatten(-2)  # [..., pixels * channels]
    return tensor


def to_stored_form(tensor: Tensor, place: Place) -> Tensor:
    if place.form == "one":
        return tensor.reshape(1)  # [] -> [1]
    if place.form == "unfolded":
        by_pixel = tensor.reshape(*tensor.shape[:-1], 4, -1).transpose(-1, -2)  # [..., channels, pixels]
        return by_pixel[..., PIXEL_ORDER].flatten(-2)
    return tensor


def scatter(tensors: Mapping[str, Tensor], table: KeyTable, source: str) -> dict[str, Tensor]:
    """A detector's tensors in another layout: the inverse of `gather`.

    Raises:
        ModelError: the layout has no name for some of them, which are listed.
    """
    out: dict[str, Tensor] = {}
    thirds: dict[str, dict[int, Tensor]] = {}
    unnamed = []
    for own, tensor in tensors.items():
        name = file_name(own, UNTIED)
        place = table.place(name)
        if place is None:
            unnamed += [] if name.startswith(OPTIONAL) else [name]
        elif place.form == "third":
            thirds.setdefault(place.key, {})[place.part] = tensor
        else:
            out |= {key: to_stored_form(tensor, place) for key in (place.key, place.copy) if key}
    if unnamed:
        raise ModelError(f"{source}: the layout has no place for {', '.join(unnamed)}; choose another")
    # query, key, value in a stack: (3 d, d)
    return out | {key: torch.cat([parts[i] for i in range(3)]) for key, parts in thirds.items()}


TABLES: dict[str, Callable[[Any], KeyTable]] = {
    "idea": lambda config: idea_table(),
    "mmdetection": lambda config: mmdetection_table(len(config.backbone_config.out_features), config.decoder_layers),
}
"""Each layout's rules for a detector, from its configuration."""
