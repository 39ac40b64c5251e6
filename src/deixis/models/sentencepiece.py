"""Tokenizers of InternLM 2 (Sa2VA-8B, -26B): a sentencepiece model with its own Python code, which is never run.

`tokenizer.model` is a protobuf message. Used fields: 1, the pieces (1 text, 2 score, 3 kind); 2, training (3 model
type); 3, normalisation (2 a table of characters, 3 whether a space is put before the text, 4 whether repeated spaces
become one).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from deixis.errors import ModelError

FILE = "tokenizer.model"
_BLANK = "▁"
# a model type, and two kinds of pieces, in the numbers of sentencepiece's protobuf schema
_BPE, _CONTROL, _USER_DEFINED = 2, 3, 4
_SPECIAL = ("<unk>", "<s>", "</s>")  # InternLM 2's first three pieces, whatever their names in the file


class Piece(NamedTuple):
    """One entry of the vocabulary; merges that give the piece with the highest score come first."""

    text: str
    score: float
    kind: int


class SentencePieceModel(NamedTuple):
    """The content of `tokenizer.model`."""

    pieces: list[Piece]
    model_type: int
    characters: bytes
    blank_before: bool
    joins_blanks: bool


def is_internlm2(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a folder has InternLM 2's tokenizer, not yet converted to `tokenizer.json`.

    Args:
        config: the content of tokenizer_config.json.
    """
    converted = (folder / "tokenizer.json").exists()
    return not converted and str(config.get("tokenizer_class")).startswith("InternLM2Tokenizer")


def internlm2_tokenizer(folder: Path, config: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """The folder's tokenizer as a fast tokenizer, without running its code.

    Raises:
        ModelError: `tokenizer.model` is missing or damaged, or is not a byte-pair encoding.
    """
    model = read_sentencepiece(folder / FILE)
    if model.model_type != _BPE:
        raise ModelError(
            f"{folder / FILE}: is not a byte-pair encoding, which InternLM 2 uses; download the model again"
        )
    names = [*_SPECIAL, *(piece.text for piece in model.pieces[3:])]
    added = _added_tokens(folder, config, model)
    for number, token in added.items():
        if number < len(names):
            names[number] = token.content
    ids = {name: number for number, name in enumerate(names)}
    # `byte_fallback`: a character without a piece becomes the pieces "<0x00>" to "<0xFF>" of its UTF-8 bytes.
    tokenizer = Tokenizer(BPE(ids, _merges(model, ids), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = _normalizer(model)
    blanks = [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*blanks, *([decoders.Strip(" ", left=1)] if model.blank_before else [])])
    tokenizer.add_tokens([added[number] for number in sorted(added)])
    placed = {number: tokenizer.id_to_token(number) for number in added}
    wrong = next((number for number, token in added.items() if placed[number] != token.content), None)
    if wrong is not None:
        raise ModelError(
            f"{folder}: added token {added[wrong].content[:40]!r} cannot have id {wrong}; download the model again"
        )
    if config.get("add_bos_token", True):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", ids["<s>"])]
        )
    length = config.get("model_max_length")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        additional_special_tokens=[token.content for token in added.values() if token.special][:1000],
        clean_up_tokenization_spaces=False,
        **({"model_max_length": length} if isinstance(length, int) else {}),
    )


def read_sentencepiece(file: Path) -> SentencePieceModel:
    """The pieces and settings of a sentencepiece model.

    Raises:
        ModelError: the file is damaged.
    """
    pieces: list[Piece] = []
    model_type, characters, blank_before, joins_blanks = 1, b"", True, True  # the format's own defaults
    try:
        for field, value in _fields(file.read_bytes()):
            if field == 1:
                inner = dict(_fields(value))
                # a score or kind that is not written has the default, 0.0 and 1
                pieces.append(Piece(inner[1].decode(), struct.unpack("<f", inner.get(2, bytes(4)))[0], inner.get(3, 1)))
            elif field == 2:
                model_type = dict(_fields(value)).get(3, model_type)
            elif field == 3:
                inner = dict(_fields(value))
                characters = inner.get(2, b"")
                blank_before, joins_blanks = bool(inner.get(3, True)), bool(inner.get(4, True))
    except (OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"{file}: is not a sentencepiece model, or is damaged; download the model again") from error
    if len(pieces) < len(_SPECIAL):
        raise ModelError(
            f"{file}: has {len(pieces)} pieces, expected {len(_SPECIAL)} or more; download the model again"
        )
    return SentencePieceModel(pieces, int(model_type), characters, blank_before, joins_blanks)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a protobuf message; values are integers, or bytes for all other types."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7  # protobuf's wire types: 0 a varint, 1 eight bytes, 2 a length and bytes, 5 four bytes
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field of kind {kind}")
        if at + size > len(data):
            raise ValueError("cut off")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift  # seven bits at a time, lowest first; the eighth says that more follow
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("number without end")


def _added_tokens(folder: Path, config: Mapping[str, Any], model: SentencePieceModel) -> dict[int, AddedToken]:
    """Tokens that are matched as a whole, by id, from the configuration, `added_tokens.json` and the model itself."""
    found: dict[int, tuple[str, bool]] = {
        number: (piece.text, piece.kind == _CONTROL)
        for number, piece in enumerate(model.pieces)
        if piece.kind in (_CONTROL, _USER_DEFINED) and number >= len(_SPECIAL)
    }
    found |= {number: (text, True) for number, text in enumerate(_SPECIAL)}
    file = folder / "added_tokens.json"
    given: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    try:
        found |= {int(number): (str(text), True) for text, number in given.items()}
        for number, token in (config.get("added_tokens_decoder") or {}).items():
            found[int(number)] = (str(token["content"]), bool(token.get("special", True)))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}: its added tokens cannot be read ({error}); download the model again") from error
    return {number: AddedToken(text, normalized=False, special=special) for number, (text, special) in found.items()}


def _merges(model: SentencePieceModel, ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece from two others, pieces with the highest score first."""
    ways: list[tuple[float, int, int, str, str]] = []
    for piece in model.pieces[len(_SPECIAL) :]:
        for cut in range(1, len(piece.text)):
            left, right = piece.text[:cut], piece.text[cut:]
            if piece.kind == 1 and left in ids and right in ids:  # 1: an ordinary piece
                # of equal scores the pair with the lower ids
                ways.append((-piece.score, ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(ways)]


def _normalizer(model: SentencePieceModel) -> Any:
    # in sentencepiece's order: characters, repeated blanks, the blank before, blanks as ▁
    steps: list[Any] = [normalizers.Precompiled(model.characters)] if model.characters else []
    if model.joins_blanks:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.blank_before:
        steps.append(normalizers.Prepend(_BLANK))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _BLANK)])
