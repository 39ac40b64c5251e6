"""A vocabulary as prompts: at the edges of what fits, whole, even, and with clear errors."""

from __future__ import annotations

import numpy as np
import pytest
from bert_tokenizer import BertPromptTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.batch_records import Prompt
from deixis.data.detect.chunking import chunk_prompts, name_tokens
from deixis.data.detect.prompts import build_prompt
from deixis.errors import PromptError

pytestmark = pytest.mark.filterwarnings("ignore:class name 'st. ")

NAMES = ("raccoon", "hot dog", "st. bernard", "traffic light", "bat (animal)", "cat")


@pytest.fixture(scope="module")
def tokenizer() -> BertPromptTokenizer:
    return BertPromptTokenizer()


def same(one: Prompt, other: Prompt) -> bool:
    texts = one.caption == other.caption and one.names == other.names and one.input_ids == other.input_ids
    return texts and np.array_equal(one.positive_map, other.positive_map)


def test_one_name_is_one_prompt(tokenizer: BertPromptTokenizer) -> None:
    (prompt,) = chunk_prompts(["raccoon"], tokenizer)
    assert same(prompt, build_prompt(["raccoon"], tokenizer))


def test_exactly_fitting_names_are_one_prompt_and_one_token_less_makes_two(tokenizer: BertPromptTokenizer) -> None:
    names = NAMES[:2] + NAMES[3:]
    whole = build_prompt(names, tokenizer)
    (prompt,) = chunk_prompts(names, tokenizer, len(whole.input_ids))
    assert same(prompt, whole)
    prompts = chunk_prompts(names, tokenizer, len(whole.input_ids) - 1)
    assert len(prompts) == 2
    assert [name for prompt in prompts for name in prompt.names] == list(names)


def test_a_name_that_exactly_fills_a_prompt_is_fine_and_one_token_more_is_named(
    tokenizer: BertPromptTokenizer,
) -> None:
    long = " ".join(["dog"] * 253)  # with its delimiter and two special tokens: 256
    assert [len(prompt.names) for prompt in chunk_prompts(["cat", long, "bird"], tokenizer, 256)] == [1, 1, 1]
    with pytest.raises(PromptError, match=r"class name 'dog dog .*…' takes 255 tokens.*holds 254; shorten"):
        chunk_prompts(["cat", long + " dog"], tokenizer, 256)


def test_no_names_is_an_error(tokenizer: BertPromptTokenizer) -> None:
    with pytest.raises(PromptError, match="at least one class name"):
        chunk_prompts([], tokenizer)


def test_prompts_are_even(tokenizer: BertPromptTokenizer) -> None:
    """Filled one after the other they would hold 40, 40 and 20 names: the last ones in much smaller company."""
    names = [f"{letter} {other}" for letter in "abcdefghij" for other in "abcdefghij"]
    assert [len(prompt.names) for prompt in chunk_prompts(names, tokenizer, max_names=40)] == [34, 34, 32]
    lengths = [len(prompt.input_ids) for prompt in chunk_prompts(names, tokenizer, 200)]
    assert max(lengths) - min(lengths) <= max(len(name_tokens(name, tokenizer)) for name in names)


def test_names_that_cannot_be_told_apart_are_found_across_prompts(tokenizer: BertPromptTokenizer) -> None:
    """Each prompt by itself would be fine."""
    with pytest.raises(PromptError, match=r"'Cat' and 'cat' .* cannot be told apart"):
        chunk_prompts(["Cat", "dog", "bird", "cat"], tokenizer, 6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["red", "dog", "Ferris wheel", "st. x", "zyzzyva"]), min_size=1, max_size=30),
    st.integers(14, 60),
    st.integers(1, 9),
)
def test_every_name_is_asked_once_in_order_and_every_prompt_fits(words: list[str], tokens: int, most: int) -> None:
    tokenizer = BertPromptTokenizer()
    names = [f"{word} {number}" for number, word in enumerate(words)]
    prompts = chunk_prompts(names, tokenizer, tokens, most)
    assert [name for prompt in prompts for name in prompt.names] == names
    assert all(len(prompt.input_ids) <= tokens and len(prompt.names) <= most for prompt in prompts)
    needed = sum(len(name_tokens(name, tokenizer)) for name in names) / (tokens - 2)
    assert len(prompts) >= max(needed, len(names) / most)


def test_lengths_of_names_add_up(tokenizer: BertPromptTokenizer) -> None:
    """What chunking counts with: a prompt is its names' tokens and two more."""
    prompt = build_prompt(NAMES, tokenizer)
    assert prompt.input_ids[1:-1] == tuple(i for name in NAMES for i in name_tokens(name, tokenizer))
