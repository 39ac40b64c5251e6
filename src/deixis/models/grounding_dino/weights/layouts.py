"""Checkpoints in other projects' layouts, placed in full or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.grounding_dino.weights.key_tables import KeyTable, Place, idea_table, mmdetection_table
from deixis.models.grounding_dino.weights.recognise import Names, decoder_layer_count
from deixis.models.grounding_dino.weights.transformers_layout import OPTIONAL, Ties, file_name

UNTIED = Ties(boxes=False, classes=False)
PIXEL_ORDER = (0, 2, 1, 3)
"""Of the four pixels that Swin merges: the place of each in the other order, in both directions."""


class Layout(NamedTuple):
    """How a project writes its checkpoints.

    Attributes:
        name: of the project.
        signs: starts of names that only its files have.
        top_key: what the weights stand under in the file.
        left_out: patterns of names that the detector has no use for, and what they are.
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
    """Whose layout these names are.

    Raises:
        ModelError: nobody's that is known.
    """
    for layout in LAYOUTS.values():
        if all(any(name.startswith(sign) for name in names) for sign in layout.signs):
            return layout
    if any(name.startswith("model.backbone.conv_encoder.") for name in names):
        raise ModelError(f"{source}: weights of transformers without their config.json; name the folder they belong in")
    some = ", ".join(list(names)[:3])
    raise ModelError(
        f"{source}: the names ({some}, ...) are those of no known layout; wanted Grounding DINO's as "
        "IDEA-Research or MMDetection write it"
    )


def table_of(layout: Layout, state: Mapping[str, Tensor], source: str) -> KeyTable:
    """The layout's rules for this very checkpoint."""
    if layout is IDEA:
        return idea_table()
    convs = [int(match[1]) for name in state if (match := re.match(r"neck\.convs\.(\d+)\.", name))]
    layers = decoder_layer_count(Names(state, mmdetection_table(0, 0), source))
    return mmdetection_table(1 + max(convs, default=-1), layers)


class Gathered(NamedTuple):
    """A checkpoint under transformers' file names.

    Attributes:
        tensors: every one that is wanted.
        left_out: the file's tensors without a use, and what they are.
    """

    tensors: dict[str, Tensor]
    left_out: dict[str, str]


def gather(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: Layout, table: KeyTable, source: str
) -> Gathered:
    """Every tensor of a checkpoint to its place.

    Args:
        state: the checkpoint.
        wanted: the detector's own tensors, which say what is wanted; only their shapes are looked at.
        source: where the checkpoint was read, for messages.

    Raises:
        ModelError: tensors are missing, left over, of another shape, or kept twice and different; all are listed,
            by their names in the checkpoint.
    """
    tensors: dict[str, Tensor] = {}
    faults: dict[str, None] = {}  # an ordered set: three parts of one tensor fail together
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
        tensor = taken(state[found[0]], place)
        if tensor.shape == like.shape:
            tensors[name] = tensor
        else:
            shape, parts = tuple(state[found[0]].shape), " for a third" if place.form == "third" else ""
            faults[f"{found[0]} has shape {shape}, wanted {tuple(like.shape)}{parts}"] = None
    left_out = {name: use for name in state if name not in used and (use := _use(name, layout))}
    faults |= dict.fromkeys(f"unexpected {name}" for name in sorted(state.keys() - used - left_out.keys()))
    if faults:
        raise ModelError(f"{source}: the weights do not fit the model ({len(faults)} faults): {'; '.join(faults)}")
    return Gathered(tensors, left_out)


def _use(name: str, layout: Layout) -> str | None:
    return next((use for pattern, use in layout.left_out.items() if re.fullmatch(pattern, name)), None)


def taken(tensor: Tensor, place: Place) -> Tensor:
    """A tensor as it is here, from what is kept in its place there."""
    if place.form == "third":
        return tensor.tensor_split(3)[place.part]
    if place.form == "one" and tensor.shape == (1,):
        return tensor[0]
    if place.form == "unfolded":
        by_channel = tensor.reshape(*tensor.shape[:-1], -1, 4)[..., PIXEL_ORDER]
        return by_channel.transpose(-1, -2).flatten(-2)
    return tensor


def _put_back(tensor: Tensor, place: Place) -> Tensor:
    if place.form == "one":
        return tensor.reshape(1)
    if place.form == "unfolded":
        by_pixel = tensor.reshape(*tensor.shape[:-1], 4, -1).transpose(-1, -2)
        return by_pixel[..., PIXEL_ORDER].flatten(-2)
    return tensor


def scatter(tensors: Mapping[str, Tensor], table: KeyTable, source: str) -> dict[str, Tensor]:
    """A detector's tensors in another layout: what `gather` undoes.

    Raises:
        ModelError: the layout has no place for some of them, which are listed.
    """
    out: dict[str, Tensor] = {}
    thirds: dict[str, dict[int, Tensor]] = {}
    homeless = []
    for own, tensor in tensors.items():
        name = file_name(own, UNTIED)
        place = table.place(name)
        if place is None:
            homeless += [] if name.startswith(OPTIONAL) else [name]
        elif place.form == "third":
            thirds.setdefault(place.key, {})[place.part] = tensor
        else:
            out |= {key: _put_back(tensor, place) for key in (place.key, place.copy) if key}
    if homeless:
        raise ModelError(f"{source}: the layout has no place for {', '.join(homeless)}; choose another")
    return out | {key: torch.cat([parts[i] for i in range(3)]) for key, parts in thirds.items()}


TABLES: dict[str, Callable[[Any], KeyTable]] = {
    "idea": lambda config: idea_table(),
    "mmdetection": lambda config: mmdetection_table(len(config.backbone_config.out_features), config.decoder_layers),
}
"""Each layout's rules for a detector of ours, by its configuration."""
