"""The detector's parts: which one a parameter belongs to, which are trained, and a table of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from torch import nn

from deixis.errors import OptionError

# Dots matter: `model.encoder.` is the encoder, `model.encoder_output_` are heads.
PART_OF_PREFIX = {
    "model.backbone.": "backbone",
    "model.text_backbone.": "text",
    "model.input_proj_vision.": "encoder",
    "model.text_projection.": "encoder",
    "model.level_embed": "encoder",
    "model.encoder.": "encoder",
    "model.query_position_embeddings.": "decoder",
    "model.decoder.": "decoder",
    "model.enc_output": "heads",
    "model.encoder_output_": "heads",
    "bbox_embed.": "heads",
    "class_embed.": "heads",
}
PARTS = tuple(dict.fromkeys(PART_OF_PREFIX.values()))
"""backbone, text, encoder (with the projections into it), decoder (with its queries), heads."""


class PartCount(NamedTuple):
    """Number of trainable and of all parameters in a part."""

    part: str
    trainable: int
    total: int


def part_of(name: str) -> str:
    """The part a parameter of `GroundingDino` belongs to, with or without adapters.

    >>> part_of("model.enc_output_norm.weight")
    'heads'
    """
    for prefix, part in PART_OF_PREFIX.items():
        if name.startswith(prefix):
            return part
    raise KeyError(f"{name} belongs to no part of the detector")


def freeze(model: nn.Module, parts: Iterable[str]) -> None:
    """Exclude parts from training. A completely frozen part also runs without a graph, dropout and drop path.

    Raises:
        OptionError: a part is unknown.
    """
    frozen = set(parts)
    if unknown := sorted(frozen - set(PARTS)):
        raise OptionError(f"the detector has no part {unknown}; its parts are {list(PARTS)}")
    for name, parameter in model.named_parameters():
        if part_of(name) in frozen:
            parameter.requires_grad_(False)


def parameter_table(model: nn.Module) -> list[PartCount]:
    """Trainable and total parameters per part, in the order of the network. A shared parameter counts once."""
    return count_parts(model, PARTS, part_of)


def training_lines(model: nn.Module, parts: Sequence[str], part_of_name: Callable[[str], str]) -> list[str]:
    """Lines that describe what is trained: the trained parts, the frozen ones, and where the adapters are."""
    counts = count_parts(model, parts, part_of_name)
    adapters: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        # each adapter has one A and one B
        if ".lora_A." in name:
            layer = name.partition(".lora_A.")[0]
            adapters.setdefault(part_of_name(name), []).append(layer.rpartition(".")[2])
    trained = [
        f"{part} ({'all' if n == total else f'{n:,} of'} {total:,})"
        for part, n, total in counts
        if n and part not in adapters
    ]
    frozen = [part for part, n, total in counts if total and not n]
    lines = [f"trained     {', '.join(trained) or 'no part but its adapters'}"]
    lines += [f"frozen      {', '.join(frozen)}"] if frozen else []
    for part, layers in adapters.items():
        kinds = ", ".join(sorted(set(layers)))
        lines.append(f"adapters    {len(layers)} in {part}, on {kinds}")
    return lines


def count_parts(model: nn.Module, parts: Sequence[str], part_of_name: Callable[[str], str]) -> list[PartCount]:
    """Trainable and total parameters per part of any model; `part_of_name` maps a parameter's name to its part."""
    trainable, total = dict.fromkeys(parts, 0), dict.fromkeys(parts, 0)
    for name, parameter in model.named_parameters():
        part = part_of_name(name)
        total[part] += parameter.numel()
        trainable[part] += parameter.numel() if parameter.requires_grad else 0
    return [PartCount(part, trainable[part], total[part]) for part in parts]
