"""Prompts: every name finds its own tokens, whatever it is called, or there is a clear error.

Letters in test names are those of the field's known faults: E (class spans), J (the end of the caption).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from bert_tokenizer import CLS, DOT, SEP, BertPromptTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.batch_records import Prompt
from deixis.data.detect.prompts import build_prompt, normalise_name
from deixis.errors import PromptError


@pytest.fixture(scope="module")
def tokenizer() -> BertPromptTokenizer:
    return BertPromptTokenizer()


def spoken(prompt: Prompt, tokenizer: BertPromptTokenizer) -> list[str]:
    """The text under each row of the positive map."""
    return [tokenizer.words([prompt.input_ids[i] for i in np.flatnonzero(row)]) for row in prompt.positive_map]


def check_invariants(prompt: Prompt) -> None:
    """What holds for every prompt."""
    assert prompt.caption.endswith(".")
    assert prompt.input_ids[0] == CLS
    assert prompt.input_ids[-2:] == (DOT, SEP)
    assert prompt.input_ids.count(DOT) == len(prompt.names)  # one phrase a name
    assert prompt.positive_map.shape == (len(prompt.names), len(prompt.input_ids))
    np.testing.assert_allclose(prompt.positive_map.sum(1), 1, rtol=1e-6)
    assert (np.count_nonzero(prompt.positive_map, axis=0) <= 1).all()  # no token belongs to two names
    special = [i for i, token in enumerate(prompt.input_ids) if token in (CLS, SEP, DOT)]
    assert not prompt.positive_map[:, special].any()


def test_one_class(tokenizer: BertPromptTokenizer) -> None:
    prompt = build_prompt(["raccoon"], tokenizer)
    check_invariants(prompt)
    assert prompt.caption == "raccoon."
    assert prompt.char_spans == ((0, 7),)
    assert spoken(prompt, tokenizer) == ["raccoon"]


def test_every_token_of_a_name_has_the_same_share(tokenizer: BertPromptTokenizer) -> None:
    prompt = build_prompt(["hot dog", "cat"], tokenizer)
    np.testing.assert_array_equal(prompt.positive_map, [[0, 0.5, 0.5, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]])


def find_in_caption(names: Sequence[str], tokenizer: BertPromptTokenizer) -> Prompt:
    """Faulty: each name searched for in the caption."""
    prompt = build_prompt(names, tokenizer)
    spans = [(prompt.caption.find(name), prompt.caption.find(name) + len(name)) for name in names]
    _, offsets = tokenizer(prompt.caption)
    rows = np.array([[float(s < e and s < span[1] and e > span[0]) for s, e in offsets] for span in spans])
    return replace(prompt, positive_map=(rows / rows.sum(1, keepdims=True)).astype(np.float32))


def split_at_delimiters(names: Sequence[str], tokenizer: BertPromptTokenizer) -> Prompt:
    """Faulty: names joined as they are, classes told apart by the delimiters found."""
    caption = ". ".join(names) + "."
    ids, _ = tokenizer(caption)
    ends = [i for i, token in enumerate(ids) if token == DOT]
    rows = np.zeros((len(names), len(ids)), np.float32)
    for row, start, end in zip(rows, [0, *ends], ends, strict=False):
        row[start + 1 : end] = 1 / max(end - start - 1, 1)
    return Prompt(caption, tuple(names), ((0, 1),) * len(names), tuple(ids), rows)


def strip_parentheses(names: Sequence[str], tokenizer: BertPromptTokenizer) -> Prompt:
    """Faulty: what stands in parentheses is left out."""
    return build_prompt([name.split("(")[0].strip() for name in names], tokenizer)


def without_last_delimiter(names: Sequence[str], tokenizer: BertPromptTokenizer) -> Prompt:
    """Faulty: names joined by delimiters, none at the end."""
    prompt = build_prompt(names, tokenizer)
    ids, _ = tokenizer(prompt.caption[:-1])
    return replace(
        prompt, caption=prompt.caption[:-1], input_ids=tuple(ids), positive_map=prompt.positive_map[:, : len(ids)]
    )


CASES: dict[str, tuple[list[str], list[str], Callable[..., Prompt]]] = {
    "E: a name inside a name": (["hot dog", "dog"], ["hot dog", "dog"], find_in_caption),
    "E: a dot in a name": (["st. bernard", "cat"], ["st bernard", "cat"], split_at_delimiters),
    "E: parentheses": (["bat (animal)", "bat (baseball)"], ["bat ( animal )", "bat ( baseball )"], strip_parentheses),
    "J: the end of the caption": (["cat", "dog"], ["cat", "dog"], without_last_delimiter),
}


@pytest.mark.filterwarnings("ignore:class name")
@pytest.mark.parametrize("case", CASES)
def test_known_fault(case: str, tokenizer: BertPromptTokenizer) -> None:
    names, expected, faulty = CASES[case]

    def check(build: Callable[..., Prompt]) -> None:
        prompt = build(names, tokenizer)
        check_invariants(prompt)
        assert prompt.names == tuple(names)
        assert spoken(prompt, tokenizer) == expected

    check(build_prompt)
    with pytest.raises((AssertionError, PromptError)):
        check(faulty)


def test_order_of_names_inside_names_does_not_matter(tokenizer: BertPromptTokenizer) -> None:
    for names in (["dog", "hot dog", "dog house"], ["dog house", "hot dog", "dog"]):
        assert spoken(build_prompt(names, tokenizer), tokenizer) == names


def test_case_and_slashes(tokenizer: BertPromptTokenizer) -> None:
    prompt = build_prompt(["Traffic Light", "N/A", "TV"], tokenizer)
    check_invariants(prompt)
    assert prompt.caption == "Traffic Light. N/A. TV."
    assert spoken(prompt, tokenizer) == ["traffic light", "n / a", "tv"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("st. bernard", "st bernard"), ("who?", "who"), (" U.S.  flag ", "U S flag"), ("a\tb\nc", "a b c")],
)
def test_names_are_normalised(name: str, text: str) -> None:
    assert normalise_name(name) == text


def test_delimiters_are_taken_out_with_a_warning(tokenizer: BertPromptTokenizer) -> None:
    with pytest.warns(UserWarning, match=r"'st. bernard' is prompted as 'st bernard'"):
        prompt = build_prompt(["st. bernard"], tokenizer)
    assert prompt.names == ("st. bernard",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_prompt(["st  bernard", "bat (animal)"], tokenizer)


def test_lower_casing_that_changes_lengths_keeps_the_spans(tokenizer: BertPromptTokenizer) -> None:
    """'İ' lower-cased is two characters, 'Å' without its accent is one of two: positions after them must not shift."""
    prompt = build_prompt(["İİİ kebap", "Åre ski", "dog"], tokenizer)
    check_invariants(prompt)
    assert spoken(prompt, tokenizer)[1:] == ["are ski", "dog"]
    assert spoken(prompt, tokenizer)[0].endswith("kebap")
    assert [prompt.caption[start:end] for start, end in prompt.char_spans] == ["İİİ kebap", "Åre ski", "dog"]


def test_no_names(tokenizer: BertPromptTokenizer) -> None:
    with pytest.raises(PromptError, match="at least one class name"):
        build_prompt([], tokenizer)


@pytest.mark.parametrize("name", ["", "   ", "...", "?."])
def test_names_without_a_word(name: str, tokenizer: BertPromptTokenizer) -> None:
    with pytest.raises(PromptError, match="nothing but delimiters") as caught:
        build_prompt(["cat", name], tokenizer)
    assert repr(name) in str(caught.value)


@pytest.mark.filterwarnings("ignore:class name")
@pytest.mark.parametrize(
    ("first", "second"),
    [("cat", "cat"), ("st. bernard", "st bernard"), ("Cat", "cat"), ("café", "cafe"), ("a-b", "a - b")],
)
def test_names_that_cannot_be_told_apart(first: str, second: str, tokenizer: BertPromptTokenizer) -> None:
    with pytest.raises(PromptError, match="cannot be told apart") as caught:
        build_prompt([first, "dog", second], tokenizer)
    assert repr(first) in str(caught.value)
    assert repr(second) in str(caught.value)


def test_a_name_without_tokens(tokenizer: BertPromptTokenizer) -> None:
    with pytest.raises(PromptError, match=r"'\\u200b' has no token"):
        build_prompt(["cat", "\u200b"], tokenizer)  # a zero-width space, which BERT throws away


def test_a_name_with_a_special_token(tokenizer: BertPromptTokenizer) -> None:
    with pytest.raises(PromptError, match="special or phrase-ending token"):
        build_prompt(["cat", "the [SEP] sign"], tokenizer)


def test_an_unknown_word_is_warned_about(tokenizer: BertPromptTokenizer) -> None:
    with pytest.warns(UserWarning, match="'🦝' is unknown"):
        prompt = build_prompt(["cat", "🦝"], tokenizer)
    check_invariants(prompt)


@pytest.mark.filterwarnings("ignore:class name")
def test_two_unknown_words_cannot_be_told_apart(tokenizer: BertPromptTokenizer) -> None:
    with pytest.raises(PromptError, match="cannot be told apart"):
        build_prompt(["🦝", "🐺"], tokenizer)


def test_an_over_long_prompt_says_what_does_not_fit(tokenizer: BertPromptTokenizer) -> None:
    numbers = ["one", "two", "three", "four", "five"]  # a token each, so 2 tokens a name, 2 for [CLS] and [SEP]
    check_invariants(build_prompt(numbers, tokenizer, max_text_len=12))
    for max_text_len, fitting in ((11, 4), (10, 4), (9, 3), (4, 1), (3, 0)):
        with pytest.raises(PromptError) as caught:
            build_prompt(numbers, tokenizer, max_text_len)
        assert f"takes 12 tokens but the model reads {max_text_len}" in str(caught.value)
        assert f"the first {fitting} names fit, {numbers[fitting]!r} does not" in str(caught.value)


def test_as_many_names_fit_as_the_error_says(tokenizer: BertPromptTokenizer) -> None:
    names = [f"hot {i} dog" for i in range(100)]
    with pytest.raises(PromptError) as caught:
        build_prompt(names, tokenizer)
    fitting = int(str(caught.value).split("the first ")[1].split()[0])
    check_invariants(build_prompt(names[:fitting], tokenizer))
    with pytest.raises(PromptError):
        build_prompt(names[: fitting + 1], tokenizer)


NAMES = st.lists(
    st.text(st.sampled_from(list("abdogCATİéß .?-/()'\"&0")), min_size=1, max_size=12), min_size=1, max_size=8
)


@settings(max_examples=200, deadline=None)
@given(NAMES)
def test_any_names_make_a_right_prompt_or_a_prompt_error(tokenizer: BertPromptTokenizer, names: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            prompt = build_prompt(names, tokenizer)
        except PromptError:
            return
    check_invariants(prompt)
    for row, (start, end) in zip(prompt.positive_map, prompt.char_spans, strict=True):
        alone = tokenizer(prompt.caption[start:end])[0][1:-1]
        assert [prompt.input_ids[i] for i in np.flatnonzero(row)] == alone
