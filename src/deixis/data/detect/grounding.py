"""A sentence as the prompt: where its phrases are, and the tokens that boxes are positive on.

Class names are joined into a prompt and their places are recorded meanwhile (`prompts`). A caption comes with phrases
that were cut out of it, so here the places have to be found again: from the offsets that the file gives, or by search.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deixis.batch_records import Prompt
from deixis.data.detect.prompts import DELIMITERS, MAX_TEXT_LEN, PromptTokenizer
from deixis.errors import DataError, PromptError
from deixis.records import Sample, Spans


def locate_phrases(caption: str, phrases: Sequence[str], given: Mapping[str, Spans]) -> tuple[Spans, ...]:
    """The characters of each phrase in its caption.

    Offsets count where the text at them is the phrase, but for case and white space. Elsewhere the phrase is looked
    for as whole words, whatever their case; where it occurs several times, also inside longer phrases ("a dog" in
    "a dog house"), the one place outside them is meant.

    Args:
        given: `[start, end)` of some phrases, several where a phrase is split.

    Raises:
        DataError: a phrase is not in the caption, or occurs there several times and no offset selects one.

    >>> locate_phrases("A dog by a dog house", ["a dog house", "a dog"], {})
    (((9, 20),), ((0, 5),))
    """
    found: dict[str, Spans] = {}
    for phrase in sorted(phrases, key=len, reverse=True):  # longer ones first: they rule places out for shorter ones
        longer = [span for spans in found.values() for span in spans]
        spans = given.get(phrase, ())
        found[phrase] = spans if _says(caption, spans, phrase) else (_search(caption, phrase, longer),)
    return tuple(found[phrase] for phrase in phrases)


def sentence_prompt(sample: Sample, tokenizer: PromptTokenizer, max_text_len: int = MAX_TEXT_LEN) -> Prompt | None:
    """The prompt of a sample whose phrases have known places in its caption; None for all other samples.

    None also where the caption is too long, or a phrase has no token; with a warning. Its names are then the prompt.
    """
    if not sample.phrase_spans:
        return None
    try:
        return build_sentence_prompt(
            sample.caption, sample.vocabulary.names, sample.phrase_spans, tokenizer, max_text_len
        )
    except PromptError as error:
        warnings.warn(f"{sample.source}: {error}; it is prompted by the list of its phrases", stacklevel=2)
        return None


def build_sentence_prompt(
    caption: str,
    phrases: Sequence[str],
    spans: Sequence[Spans],
    tokenizer: PromptTokenizer,
    max_text_len: int = MAX_TEXT_LEN,
) -> Prompt:
    """The prompt that is the sentence itself; only a closing `.` is added where it has none.

    Args:
        caption: as the spans count it.
        phrases: the names of the prompt.
        spans: characters of each; phrases may overlap, and one may have several.

    Returns:
        A prompt whose positive map has a row per phrase that sums to 1 over its tokens; delimiters inside it are left
        out. `char_spans` are the first of each.

    Raises:
        PromptError: the sentence is too long, or a phrase has no token.
    """
    sentence = caption.rstrip()
    sentence += "" if sentence.endswith(tuple(DELIMITERS)) else "."
    input_ids, offsets = tokenizer(sentence)
    if len(input_ids) > max_text_len:
        raise PromptError(f"the caption takes {len(input_ids)} tokens but the model reads {max_text_len}; shorten it")
    rows = np.zeros((len(phrases), len(input_ids)), dtype=np.float32)  # [phrases, tokens]
    for row, phrase, places in zip(rows, phrases, spans, strict=True):
        for token, (start, end) in enumerate(offsets):
            inside = any(start < high and end > low for low, high in places)
            # special tokens have no characters
            row[token] = start < end and inside and sentence[start:end] not in DELIMITERS
        if not row.any():
            raise PromptError(f"the phrase {phrase!r} has no token in this model's tokenizer; rename it")
    rows /= rows.sum(1, keepdims=True)
    return Prompt(sentence, tuple(phrases), tuple(places[0] for places in spans), tuple(input_ids), rows)


def _says(caption: str, spans: Spans, phrase: str) -> bool:
    """Whether the text at the offsets is the phrase."""
    inside = all(0 <= start < end <= len(caption) for start, end in spans)
    text = " ".join(caption[start:end] for start, end in spans)
    return bool(spans) and inside and text.lower().split() == phrase.lower().split()


_GAP = re.compile(r"\s\s|[^\S ]")  # white space that is more than a single space


def _search(caption: str, phrase: str, longer: Sequence[tuple[int, int]]) -> tuple[int, int]:
    found: list[tuple[int, int]] = []
    # compiling a pattern for every phrase would take most of the time that a large file is read in
    if caption.isascii() and not _GAP.search(caption):
        found = list(_whole_words(caption.lower(), " ".join(phrase.lower().split())))
    if not found:
        words = r"\s+".join(re.escape(word) for word in phrase.split())
        # not \b, which fails beside a phrase that begins or ends with a sign; places may overlap
        places = re.finditer(rf"(?<!\w)(?=({words})(?!\w))", caption, re.IGNORECASE)
        found = [place.span(1) for place in places]
    outside = [(start, end) for start, end in found if not any(low <= start and end <= high for low, high in longer)]
    chosen = outside if len(found) > 1 and outside else found
    if not chosen:
        raise DataError(f"phrase {phrase!r} is not in its caption {_short(caption)}; correct one of the two")
    if len(chosen) > 1:
        raise DataError(
            f"phrase {phrase!r} occurs {len(chosen)} times in its caption {_short(caption)}; "
            "select one with tokens_positive"
        )
    return chosen[0]


def _whole_words(text: str, words: str) -> Iterator[tuple[int, int]]:
    """Where `words` occur in `text` as they are, with no letter, digit or underscore beside them."""
    start = text.find(words)
    while start >= 0:
        end = start + len(words)
        if not any(char.isalnum() or char == "_" for char in (text[start - 1 : start], text[end : end + 1])):
            yield start, end
        start = text.find(words, start + 1)


def _short(caption: str) -> str:
    return repr(caption if len(caption) <= 80 else caption[:77] + "...")
