"""How a segmenter's conversations become tokens, read without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data.pixels.cuts import Blocks, Cutter
from deixis.data.refer.conversation import SEG
from deixis.errors import ModelError
from deixis.models.builtin import resolve_model
from deixis.models.folders import model_folder, read_json, read_tokenizer, reads_model
from deixis.models.sa2va.encoding import ConversationTokens
from deixis.models.sa2va.families.table import family_of, released_family
from deixis.models.sa2va.weights.pretrained import CONFIG, MODEL_TYPE, VLM, blocks_of, read_config, template_of
from deixis.models.sa2va.weights.released import EXAMPLE, RELEASED_TYPE

FILES = ("*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True)
class Wording:
    """What decides how many tokens a conversation takes.

    Attributes:
        tokens: writes it.
        seg_token_id: of `[SEG]`.
        cutter: cuts pictures.
    """

    tokens: ConversationTokens
    seg_token_id: int
    cutter: Cutter


@reads_model
def read_wording(source: str | Path) -> Wording:
    """That of a segmenter by its name, as `load_sa2va` takes it; of a hub id no weights are downloaded.

    Raises:
        ModelError: it cannot be read, or is of another kind.
    """
    folder = model_folder(resolve_model(source, "segmenter"), FILES, EXAMPLE)
    values = read_json(folder / CONFIG)
    kind = values.get("model_type") if isinstance(values, Mapping) else None
    config: Any
    blocks: Blocks | None
    if kind == MODEL_TYPE:
        tokenizer, template = read_tokenizer(folder / VLM), template_of(values, folder)
        config, blocks = read_config(folder / VLM), blocks_of(values, folder)
    elif kind == RELEASED_TYPE:
        layout = released_family(values, folder).released
        tokenizer, template = read_tokenizer(folder), layout.template(values, folder)
        # whether the output layer is tied does not change the tokens
        config = layout.config(values, tokenizer.convert_tokens_to_ids(template.image_token), False, str(source))
        blocks = layout.blocks(config)
    else:
        raise ModelError(f"{folder / CONFIG}: model_type is {kind!r}, expected {MODEL_TYPE!r} or {RELEASED_TYPE!r}")
    tiling = family_of(config).tiling(config)
    pad = tokenizer.pad_token_id
    end = tokenizer.convert_tokens_to_ids(template.end)
    per_square = tiling.side**2 if blocks is None else 1
    tokens = ConversationTokens(tokenizer, template, per_square, int(end if pad is None else pad))
    return Wording(tokens, int(tokenizer.convert_tokens_to_ids(SEG)), blocks or tiling)
