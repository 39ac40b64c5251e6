"""InternLM 2's tokenizers: sentencepiece models read without the code beside them."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from deixis.errors import ModelError
from deixis.models.folders import read_tokenizer
from deixis.models.sentencepiece import read_sentencepiece

WORDS = ("segment", "the", "left", "cup", "please", "theme")
BLANK = "▁"


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def vocabulary() -> list[tuple[str, float, int]]:
    """Special pieces, 256 bytes, letters, and what merging the words letter by letter makes of them."""
    pieces: list[tuple[str, float, int]] = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0, 6) for byte in range(256)]
    made = dict.fromkeys(f"{BLANK}{word}"[:end] for word in WORDS for end in range(2, len(word) + 2))
    letters = dict.fromkeys(letter for word in (BLANK, *WORDS) for letter in word)
    pieces += [(piece, -float(number), 1) for number, piece in enumerate([*made, "ef", "eas"])]
    return [*pieces, *((letter, -1000.0 - number, 1) for number, letter in enumerate(letters)), ("[MARK]", 0, 4)]


def model_bytes(blank_before: bool = True, model_type: int = 2) -> bytes:
    pieces = b"".join(
        message(1, message(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind))
        for text, score, kind in vocabulary()
    )
    normal = message(1, b"identity") + b"\x18" + varint(blank_before) + b"\x20\x00"
    return pieces + message(2, b"\x18" + varint(model_type)) + message(3, normal)


def folder(place: Path, **changes: Any) -> Path:
    """As on the hub: a planted file stands for the tokenizer's own code."""
    place.mkdir()
    (place / "tokenizer.model").write_bytes(model_bytes(**changes))
    count = len(vocabulary())
    added = {str(count + i): {"content": text, "special": True} for i, text in enumerate(("<|im_end|>", "[SEG]"))}
    config = {
        "tokenizer_class": "InternLM2Tokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "added_tokens_decoder": {"0": {"content": "<unk>"}, "1": {"content": "<s>"}, "2": {"content": "</s>"}, **added},
        "pad_token": "</s>",
    }
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    (place / "tokenization_internlm2.py").write_text(f"open({str(place / 'ran')!r}, 'w')\n")
    return place


def by_score(text: str) -> list[str]:
    """Sentencepiece's way, written anew: the neighbours that make the piece of the highest score are joined first."""
    scores = {piece: score for piece, score, kind in vocabulary() if kind == 1}
    parts = list(BLANK + text.replace(" ", BLANK))
    while True:
        found = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
        if not found:
            break
        at = min(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [one for part in parts for one in ([part] if part in scores else [f"<0x{b:02X}>" for b in part.encode()])]


@pytest.mark.parametrize(
    "text", ["please segment the left cup", "thema", "é the", "the  left", " cup", "pleasethe", "猫", "lefteas"]
)
def test_tokens_are_sentencepieces(text: str, tmp_path: Path) -> None:
    tokenizer = read_tokenizer(folder(tmp_path / "m"))
    assert tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids) == by_score(text)
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    assert tokenizer(text).input_ids[0] == tokenizer.bos_token_id == 1
    assert not (tmp_path / "m" / "ran").exists()


def test_special_tokens_stand_at_their_ids(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(folder(tmp_path / "m"))
    count = len(vocabulary())
    ids = tokenizer("cup[SEG]<|im_end|>", add_special_tokens=False).input_ids
    assert ids[-2:] == [count + 1, count]
    assert tokenizer.convert_tokens_to_ids("[MARK]") == count - 1
    assert (tokenizer.pad_token, tokenizer.eos_token_id, tokenizer.unk_token_id) == ("</s>", 2, 0)


def test_what_is_written_loads_in_transformers_without_code(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(folder(tmp_path / "m"))
    tokenizer.save_pretrained(tmp_path / "written")
    again = AutoTokenizer.from_pretrained(tmp_path / "written", trust_remote_code=False)
    text = "please segment é[SEG] left"
    assert again(text).input_ids == tokenizer(text).input_ids


def test_without_a_blank_before_the_text(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(folder(tmp_path / "m", blank_before=False))
    assert tokenizer.convert_ids_to_tokens(tokenizer("cup", add_special_tokens=False).input_ids)[0] == "c"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x0a\xff\xff\xff\xff\x0f", model_bytes()[:777], b"\x80" * 40])
def test_a_damaged_model_is_one_line(content: bytes, tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    (place / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.model|no tokenizer can be read") as caught:
        read_tokenizer(place)
    assert "\n" not in str(caught.value)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a byte-pair encoding"):
        read_tokenizer(folder(tmp_path / "m", model_type=1))
    assert read_sentencepiece(tmp_path / "m" / "tokenizer.model").model_type == 1


def test_the_code_of_another_tokenizer_is_not_run_and_the_way_out_named(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    config = json.loads((place / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "OtherTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_internlm2.X", None]}}
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"put one with tokenizer\.json into the folder"):
        read_tokenizer(place)
    assert not (place / "ran").exists()
