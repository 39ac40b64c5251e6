"""The prompt doctor: what the class names become in the tokens that a model reads."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deixis.data.detect.prompts import DELIMITERS, MAX_TEXT_LEN, PromptTokenizer, build_prompt, normalise_name
from deixis.data.findings import Findings
from deixis.errors import PromptError

FRAGMENTS = 3  # a word in this many pieces or more is reported
_FRAMES = 2  # the start and end tokens of a prompt


@dataclass(frozen=True)
class PromptFacts:
    """Class names as a model reads them.

    Attributes:
        pieces: by name, the text of each of its tokens, delimiter not counted; empty where no prompt can ask for it.
        limit: tokens that one prompt holds.
        tokens: tokens of one prompt with all names.
        prompts: prompts that all names take, in their order.
    """

    pieces: dict[str, tuple[str, ...]]
    limit: int
    tokens: int
    prompts: int


def examine_prompts(
    names: Sequence[str],
    tokenizer: PromptTokenizer,
    counts: Mapping[str, int],
    file: str,
    findings: Findings,
    limit: int = MAX_TEXT_LEN,
) -> PromptFacts:
    """Tokenise each name as a prompt of its own and report what is wrong with it.

    Args:
        counts: objects by name; a name that no prompt can ask for is removed where it has none.
        file: what the findings name.
    """
    pieces: dict[str, tuple[str, ...]] = {}
    first_with: dict[tuple[int, ...], str] = {}
    for name in names:
        place = f"class {name!r}"
        if any(char in DELIMITERS for char in name) and normalise_name(name):
            text = f"is asked for as {normalise_name(name)!r}"
            findings.add("name_delimiter", file, place, text)
        try:
            ids, pieces[name] = _tokens(name, tokenizer, limit)
        except PromptError as error:
            # The two faults of `build_prompt` are told apart by their words.
            kind = "prompt_too_long" if "takes" in str(error) else "name_wordless"
            findings.add(kind, file, place, str(error).split(";")[0], "" if counts.get(name) else "class removed")
            pieces[name] = ()
            continue
        if ids in first_with:
            text = f"becomes the tokens of {first_with[ids]!r}: {' '.join(pieces[name])}"
            findings.add("names_same_tokens", file, place, text)
        first_with.setdefault(ids, name)
        _report_pieces(name, ids, pieces[name], getattr(tokenizer, "unknown_id", None), file, findings)
    # An empty text is a name that no prompt can ask for, so it takes no room.
    costs = [len(found) + 1 for found in pieces.values() if found]  # and the delimiter
    facts = PromptFacts(pieces, limit, sum(costs) + _FRAMES, _prompts(costs, limit - _FRAMES))
    if facts.prompts > 1:
        text = f"{len(names)} names take {facts.tokens} tokens of {limit}: {facts.prompts} prompts per image"
        findings.add("prompt_chunks", file, "", text)
    return facts


def _tokens(name: str, tokenizer: PromptTokenizer, limit: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Ids and texts of the tokens of a name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prompt = build_prompt([name], tokenizer, limit)
    _, offsets = tokenizer(prompt.caption)
    own = [i for i, weight in enumerate(prompt.positive_map[0].tolist()) if weight > 0]
    texts = tuple(prompt.caption[slice(*offsets[i])] for i in own)
    return tuple(prompt.input_ids[i] for i in own), texts


def _report_pieces(
    name: str, ids: tuple[int, ...], pieces: tuple[str, ...], unknown_id: int | None, file: str, findings: Findings
) -> None:
    unknown = [piece for i, piece in zip(ids, pieces, strict=True) if i == unknown_id]
    if unknown:
        findings.add("name_unknown", file, f"class {name!r}", f"{', '.join(map(repr, unknown))} is unknown")
    words = normalise_name(name).split()
    left = list(pieces)
    for word in words:  # pieces follow each other, and none spans two words
        count, length = 0, 0
        while left and length < len(word):
            length += len(left.pop(0))
            count += 1
        if count >= FRAGMENTS and not unknown:
            start = len(pieces) - len(left) - count
            text = f"{word!r} is read in {count} pieces: {' '.join(pieces[start : start + count])}"
            findings.add("name_fragmented", file, f"class {name!r}", text)


def _prompts(costs: Sequence[int], room: int) -> int:
    # As if a prompt before it were full: the first name opens the first one.
    count, used = 0, room
    for cost in costs:
        if used + cost > room:
            count, used = count + 1, 0
        used += cost
    return count
