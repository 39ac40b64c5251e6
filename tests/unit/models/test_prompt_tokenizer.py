"""transformers' tokenizers as prompt tokenizers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from small_detectors import bert_tokenizer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from deixis.data.detect.prompts import PromptTokenizer, build_prompt
from deixis.errors import ModelError
from deixis.models.text import FastPromptTokenizer


def test_ids_and_offsets() -> None:
    tokenizer = FastPromptTokenizer(bert_tokenizer())
    assert isinstance(tokenizer, PromptTokenizer)
    ids, offsets = tokenizer("Red square.")
    assert ids == [101, 2417, 2675, 1012, 102]
    assert offsets == [(0, 0), (0, 3), (4, 10), (10, 11), (0, 0)]
    assert tokenizer.unknown_id == 100


def test_nothing_is_cut_off() -> None:
    """The tokenizer's own file says to cut at 128 tokens."""
    ids, offsets = FastPromptTokenizer(bert_tokenizer())("cat. " * 200)
    assert len(ids) == len(offsets) == 402


def test_special_tokens_in_the_text_are_read_as_text() -> None:
    ids, _ = FastPromptTokenizer(bert_tokenizer())("a [SEP] b.")
    assert 102 not in ids[:-1]


def test_works_with_prompts() -> None:
    prompt = build_prompt(["hot dog", "dog"], FastPromptTokenizer(bert_tokenizer()))
    assert prompt.caption == "hot dog. dog."
    assert (prompt.positive_map.sum(1) == 1).all()


def test_slow_tokenizer() -> None:
    with pytest.raises(ModelError, match="no character offsets"):
        FastPromptTokenizer(SimpleNamespace(is_fast=False))


def test_other_special_ids() -> None:
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, ".": 4, "?": 5}
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="[UNK]")), unk_token="[UNK]")
    with pytest.raises(ModelError, match=r"'\[CLS\]': 1, .*Grounding DINO needs"):
        FastPromptTokenizer(other)
