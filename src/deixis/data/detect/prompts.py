"""Class names to one caption, with each name's characters and tokens recorded while the caption is built.

Grounding DINO reads class names as one sentence, `hot dog. cat. bat (animal).`, and takes `.` and `?` as the ends
of phrases: attention is blocked between phrases and positions restart at each (arXiv 2303.05499, section 3.4).
So these two characters are taken out of the names, and the caption always ends in one. Names are never searched
for in the caption: "dog" would be found inside "hot dog".
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from deixis.batch_records import Prompt
from deixis.errors import PromptError

DELIMITERS = ".?"
# `max_text_len` of the released models, special tokens included
MAX_TEXT_LEN = 256


@runtime_checkable
class PromptTokenizer(Protocol):
    """What prompts need of a tokenizer, which must neither truncate nor pad.

    A call returns the token ids, a start token first and an end token last, and for every token the `[start, end)`
    of its characters in the text as given (special tokens have start == end). An attribute `unknown_id: int`, where
    there is one, is the id of words outside the tokenizer's vocabulary.
    """

    def __call__(self, text: str, /) -> tuple[list[int], list[tuple[int, int]]]: ...

    def __hash__(self) -> int: ...


def build_prompt(names: Sequence[str], tokenizer: PromptTokenizer, max_text_len: int = MAX_TEXT_LEN) -> Prompt:
    """The prompt that asks for `names`, in their order.

    `.` and `?` inside a name become spaces, with a warning; runs of white space become one space. Case and
    everything else is left to the tokenizer.

    Args:
        names: class names as the user gave them; `Prompt.names` keeps them so.
        tokenizer: see `PromptTokenizer`.
        max_text_len: the most tokens the model reads, special tokens included.

    Returns:
        A prompt whose `positive_map` has one row per name; each row sums to 1 over the tokens of the name alone (no
        delimiter, no special token).

    Raises:
        PromptError: no names, a name without a word, names that cannot be told apart, or a caption too long (the
            message names the class that does not fit, and how many do).
    """
    if not names:
        raise PromptError("a prompt needs at least one class name, got none")
    phrases = _phrases(names)  # aligned with `names`, which messages quote
    caption, char_spans = _caption(phrases)
    input_ids, offsets = tokenizer(caption)
    _check_length(names, char_spans, input_ids, offsets, max_text_len)
    token_ids = _check_tokens(names, char_spans, input_ids, offsets, getattr(tokenizer, "unknown_id", None))
    check_distinct(names, token_ids, "become the same tokens")
    return Prompt(
        caption=caption,
        names=tuple(names),
        char_spans=tuple(char_spans),
        input_ids=tuple(input_ids),
        positive_map=_positive_map(char_spans, offsets),
    )


def normalise_name(name: str) -> str:
    """A name without delimiters and surplus white space.

    >>> normalise_name("st. bernard")
    'st bernard'
    """
    return " ".join("".join(" " if char in DELIMITERS else char for char in name).split())


def _phrases(names: Sequence[str]) -> list[str]:
    phrases = [normalise_name(name) for name in names]
    for name, phrase in zip(names, phrases, strict=True):
        if not phrase:
            raise PromptError(f"class name {name!r} has nothing but delimiters and spaces; give it a word")
        if any(char in DELIMITERS for char in name):
            warnings.warn(
                f"class name {name!r} is prompted as {phrase!r}: '.' and '?' end a phrase in Grounding DINO's prompts",
                stacklevel=3,
            )
    check_distinct(names, phrases, "become the same prompt")
    return phrases


def _caption(phrases: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """`a. b. c.` and the characters of each phrase."""
    caption, spans = "", []
    for phrase in phrases:
        caption += " " if caption else ""
        spans.append((len(caption), len(caption) + len(phrase)))
        caption += phrase + "."
    return caption, spans


def _tokens_of(span: tuple[int, int], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Positions of the tokens that share a character with the span; empty tokens (special ones) share none."""
    return [i for i, (start, end) in enumerate(offsets) if start < end and start < span[1] and end > span[0]]


def _positive_map(
    char_spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]
) -> Float[np.ndarray, "classes tokens"]:
    rows = np.zeros((len(char_spans), len(offsets)), dtype=np.float32)
    for row, span in zip(rows, char_spans, strict=True):
        row[_tokens_of(span, offsets)] = 1
    rows /= rows.sum(1, keepdims=True)  # no row is empty, `_check_tokens` has seen to that
    return rows


def _check_length(
    names: Sequence[str],
    char_spans: Sequence[tuple[int, int]],
    input_ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    max_text_len: int,
) -> None:
    """The whole caption must fit, its last delimiter and end token included: cutting it merges the last phrases."""
    if len(input_ids) <= max_text_len:
        return
    # Tokens up to and including the delimiter after each name; the end token needs one more.
    used = [1 + max((i for i, (s, e) in enumerate(offsets) if s < e and s <= end), default=0) for _, end in char_spans]
    fitting = sum(count + 1 <= max_text_len for count in used)
    raise PromptError(
        f"the prompt of {len(names)} class names takes {len(input_ids)} tokens but the model reads {max_text_len}: the "
        f"first {fitting} names fit, {names[min(fitting, len(names) - 1)]!r} does not; "
        "shorten the names or ask for fewer at a time"
    )


def _check_tokens(
    names: Sequence[str],
    char_spans: Sequence[tuple[int, int]],
    input_ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    unknown_id: int | None,
) -> list[tuple[int, ...]]:
    """The token ids of each name, after seeing that they are usable."""
    # Read off the caption, which has a delimiter after each name: tokenizers need not have BERT's ids.
    delimiter_ids = {input_ids[i] for _, end in char_spans for i in _tokens_of((end, end + 1), offsets)}
    reserved = {input_ids[0], input_ids[-1], *delimiter_ids}  # [CLS], [SEP] and whatever the delimiters become
    per_name = []
    for name, span in zip(names, char_spans, strict=True):
        ids = tuple(input_ids[i] for i in _tokens_of(span, offsets))
        if not ids:
            raise PromptError(f"class name {name!r} has no token in this model's tokenizer; rename the class")
        if reserved.intersection(ids):
            raise PromptError(
                f"class name {name!r} contains a special or phrase-ending token of this tokenizer; rename the class"
            )
        if unknown_id is not None and set(ids) == {unknown_id}:
            warnings.warn(
                f"class name {name!r} is unknown to this model's tokenizer; consider another word", stacklevel=3
            )
        per_name.append(ids)
    return per_name


def check_distinct(names: Sequence[str], keys: Sequence[object], what: str) -> None:
    """Raise PromptError for the first two names with the same key."""
    first: dict[object, str] = {}
    for name, key in zip(names, keys, strict=True):
        if key in first:
            raise PromptError(
                f"class names {first[key]!r} and {name!r} {what} and cannot be told apart; rename or merge one of them"
            )
        first[key] = name
