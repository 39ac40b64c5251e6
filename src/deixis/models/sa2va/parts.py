"""Which part of the segmenter a parameter belongs to, which parts train, and how."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn

from deixis.errors import OptionError
from deixis.models.adapters import inject_lora, merge
from deixis.models.freezing import PartCount, count_parts
from deixis.models.sa2va.families.table import FAMILIES
from deixis.models.sa2va.language.templates import NEW_TOKENS
from deixis.models.sa2va.language.token_rows import TokenRows
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.pointing import points_first
from deixis.models.sa2va.quantized import dequantize

MEMORY = (
    "memory_attention.",
    "memory_encoder.",
    "memory_temporal_positional_encoding",
    "no_memory_positional_encoding",
    "object_pointer_proj.",
    "no_object_pointer",
    "mask_downsample.",
    "temporal_positional_encoding_projection_layer.",
    "occlusion_spatial_embedding_parameter",
)
"""What `Sam2VideoModel` has and `Sam2Model` has not."""

PART_OF_PREFIX = {
    # The first prefix that fits decides, so a part stands before the larger one that contains it.
    **{f"vlm.{prefix}": part for family in FAMILIES.values() for prefix, part in family.parts.items()},
    "vlm.model.language_model.embed_tokens.": "embeddings",
    "vlm.lm_head.": "embeddings",
    "token_rows.": "embeddings",
    "vlm.model.language_model.": "language",
    "spatial_token.": "projector",
    "text_hidden_fcs.": "text_hidden_fcs",
    "sam.vision_encoder.": "sam_encoder",
    "sam.mask_decoder.": "mask_decoder",
    **{f"sam.{prefix}": "memory" for prefix in MEMORY},
    "sam.": "sam_rest",
}
PARTS = tuple(dict.fromkeys(PART_OF_PREFIX.values()))
"""memory: SAM 2's, of earlier frames, where it has one. sam_rest: its prompt encoder and its single embeddings."""

TRAINED = ("projector", "embeddings", "text_hidden_fcs", "mask_decoder")
"""What trains by default, besides the adapters on the language model."""

LORA_PATTERN = r"vlm\.model\.language_model\.layers\..*\.(q|k|v|o|gate|up|down)_proj"


def part_of(name: str) -> str:
    """The part a parameter of `Sa2va` belongs to, with or without adapters.

    >>> part_of("vlm.model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight")
    'language'
    """
    for prefix, part in PART_OF_PREFIX.items():
        if name.startswith(prefix):
            return part
    raise KeyError(f"{name} belongs to no part of the segmenter")


def freeze(
    model: Sa2va,
    trained: Iterable[str] = TRAINED,
    *,
    lora: bool = True,
    rank: int = 128,
    alpha: float = 256,
    dropout: float = 0.0,
    rows: Literal["new", "all"] = "new",
    new_token_ids: Iterable[int] = (),
) -> None:
    """Say what trains, in place: some parts, and adapters on the language model. All the rest is frozen.

    Args:
        trained: parts that train in full. With the mask decoder trains the way into it where prompts point first.
        lora: adapters on the seven projections of every layer of the language model.
        rank, alpha, dropout: of the adapters; at first they change nothing.
        rows: of the part `embeddings`, whether only the new tokens' rows train, or all of them.
        new_token_ids: the new tokens; see `new_token_ids`. `[SEG]` alone where none are named.

    Raises:
        OptionError: an unknown part, a rank below 1, or the language model to train both ways.
        ModelError: the model carries adapters already.
    """
    chosen = set(trained)
    if unknown := sorted(chosen - set(PARTS)):
        raise OptionError(f"the segmenter has no part {unknown}; its parts are {list(PARTS)}")
    if lora and "language" in chosen:
        raise OptionError("the language model trains either in full or through adapters; choose one")
    # Before anything is chosen: PEFT freezes all that is not an adapter.
    if lora:
        inject_lora(model, LORA_PATTERN, rank, alpha=alpha, dropout=dropout)
    for name, parameter in model.named_parameters():
        if ".lora_" not in name:
            parameter.requires_grad_(part_of(name) in chosen and (part_of(name) != "embeddings" or rows == "all"))
    if "mask_decoder" in chosen and points_first(model.sam):  # what makes a prompt's map into a mask prompt
        model.sam.prompt_encoder.mask_embed.requires_grad_(True)
    if "embeddings" in chosen and rows == "new":
        ids = sorted(set(new_token_ids)) or [model.seg_token_id]
        _separate_rows(model, ids)


def merge_adapters(model: Sa2va) -> None:
    """Fold adapters and new rows into the weights, in place. A model without them is left alone.

    Quantised layers become ordinary ones with their rounded weights: with what the adapters were trained.
    """
    dequantize(model)
    if model.token_rows is not None:
        rows, model.token_rows = model.token_rows, None
        # With a tied output layer this row is both.
        _embedding(model).data[rows.token_ids] = rows.embedding.data.to(_embedding(model).dtype)
        if rows.head is not None:
            model.vlm.lm_head.weight.data[rows.token_ids] = rows.head.data.to(model.vlm.lm_head.weight.dtype)
    merge(model)


def new_token_ids(tokenizer: object) -> tuple[int, ...]:
    """Ids of the tokens that a segmenter adds to its language model's."""
    ids = tokenizer.convert_tokens_to_ids(list(NEW_TOKENS))  # type: ignore[attr-defined]
    return tuple(int(token_id) for token_id in ids)


def parameter_table(model: nn.Module) -> list[PartCount]:
    """Trainable and total parameters of every part, in the order of the network. A shared parameter counts once."""
    return count_parts(model, PARTS, part_of)


def _separate_rows(model: Sa2va, token_ids: list[int]) -> None:
    head = model.vlm.lm_head.weight
    tied = head is _embedding(model)
    model.token_rows = TokenRows(token_ids, _embedding(model), None if tied else head)


def _embedding(model: Sa2va) -> nn.Parameter:
    weight: nn.Parameter = model.vlm.get_input_embeddings().weight
    return weight


def layers_of(model: Sa2va) -> list[nn.Module]:
    """The layers of the language model and of both image encoders: each is called once per forward pass, whatever the
    batch shows. The mask decoder is not among them, nor what is small."""
    homes = ("vlm.model.language_model", f"vlm.{model.family.vision_module}", "sam.vision_encoder")
    found: list[nn.Module] = []
    for home in homes:
        lists = {n: m for n, m in model.get_submodule(home).named_modules() if isinstance(m, nn.ModuleList)}
        for name, layers in lists.items():
            if name.rpartition(".")[2] in ("layers", "layer", "blocks"):
                found += list(layers)
    return found
