"""How a segmenter's conversations become tokens, read without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data.refer.conversation import SEG
from deixis.errors import ModelError
from deixis.models.folders import model_folder, read_json, read_tokenizer, reads_model
from deixis.models.sa2va.encoding import ConversationTokens
from deixis.models.sa2va.vision_language import kind_of
from deixis.models.sa2va.weights.config import vlm_config
from deixis.models.sa2va.weights.pretrained import CONFIG, EXAMPLE, MODEL_TYPE, VLM, read_config, template_of
from deixis.models.sa2va.weights.released import RELEASED_TYPE, released_template

FILES = ("*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True)
class Wording:
    """What decides how many tokens a conversation takes.

    Attributes:
        tokens: writes it.
        seg_token_id: of `[SEG]`.
        tile_px: side of a tile, in pixels.
    """

    tokens: ConversationTokens
    seg_token_id: int
    tile_px: int


@reads_model
def read_wording(source: str | Path) -> Wording:
    """That of a segmenter's folder, of a released Sa2VA, or of a hub id of either, of which no weights are fetched.

    Raises:
        ModelError: it cannot be read, or is of another kind.
    """
    folder = model_folder(source, FILES, EXAMPLE)
    values = read_json(folder / CONFIG)
    kind = values.get("model_type") if isinstance(values, Mapping) else None
    config: Any
    if kind == MODEL_TYPE:
        tokenizer, template, config = (
            read_tokenizer(folder / VLM),
            template_of(values, folder),
            read_config(folder / VLM),
        )
    elif kind == RELEASED_TYPE:
        tokenizer, template = read_tokenizer(folder), released_template(values)
        config = vlm_config(values, tokenizer.convert_tokens_to_ids(template.image_token), False, str(source))
    else:
        raise ModelError(f"{folder / CONFIG}: model_type is {kind!r}, wanted {MODEL_TYPE!r} or {RELEASED_TYPE!r}")
    vlm = kind_of(config)
    pad = tokenizer.pad_token_id
    end = tokenizer.convert_tokens_to_ids(template.end)
    tokens = ConversationTokens(tokenizer, template, vlm.tokens_per_tile(config), int(end if pad is None else pad))
    return Wording(tokens, int(tokenizer.convert_tokens_to_ids(SEG)), vlm.tile_px(config))
