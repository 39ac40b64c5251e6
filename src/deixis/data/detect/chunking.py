"""A vocabulary of any size as prompts that each fit the model.

The names of one prompt attend to one another in the text fusion, so a score depends a little on the company a name is
asked in. Prompts are therefore made alike: no more of them than needed, in the vocabulary's order, of equal length.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from deixis.data.detect.prompts import MAX_TEXT_LEN, PromptTokenizer, build_prompt, check_distinct, normalise_name
from deixis.errors import PromptError
from deixis.records import Prompt

SPECIAL_TOKENS = 2  # the start and the end of every prompt
SHOWN_CHARACTERS = 60


def name_tokens(name: str, tokenizer: PromptTokenizer) -> tuple[int, ...]:
    """The token ids of a name in a prompt, its closing delimiter included.

    A prompt of several names is the start token, these of each name in turn, and the end token.
    """
    return tuple(tokenizer(normalise_name(name) + ".")[0][1:-1])


def require_fit(name: str, tokens: int, max_text_len: int) -> None:
    """Raise PromptError for a name that is longer than a whole prompt."""
    if tokens + SPECIAL_TOKENS > max_text_len:
        shown = name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "…"
        raise PromptError(
            f"class name {shown!r} takes {tokens} tokens, its delimiter included, but a prompt of this model holds "
            f"{max_text_len - SPECIAL_TOKENS}; shorten the name"
        )


def chunk_prompts(
    names: Sequence[str], tokenizer: PromptTokenizer, max_text_len: int = MAX_TEXT_LEN, max_names: int | None = None
) -> tuple[Prompt, ...]:
    """The prompts that together ask for all names, each name in one of them, in order.

    Args:
        names: the vocabulary; where it fits into one prompt, this is `build_prompt`.
        tokenizer: see `PromptTokenizer`.
        max_text_len: the most tokens the model reads, special tokens included.
        max_names: maximum number of names of one prompt; as many as fit when not given.

    Raises:
        PromptError: as `build_prompt`, over the whole vocabulary; and a single name longer than a prompt.
    """
    if not names:
        return (build_prompt(names, tokenizer, max_text_len),)  # raises: the message names the fault
    tokens = [name_tokens(name, tokenizer) for name in names]
    for name, ids in zip(names, tokens, strict=True):
        require_fit(name, len(ids), max_text_len)
    cuts = _even_cuts([len(ids) for ids in tokens], max_text_len - SPECIAL_TOKENS, max_names or len(names))
    prompts = tuple(build_prompt(names[start:stop], tokenizer, max_text_len) for start, stop in cuts)
    check_distinct(names, tokens, "become the same tokens")
    return prompts


def _even_cuts(lengths: Sequence[int], budget: int, most: int) -> list[tuple[int, int]]:
    """Runs `[start, stop)` of at most `budget` tokens and `most` items: as few as can be, then as even as can be."""
    # As few prompts as can be; then the smallest budget, and the fewest names, with which they are no more. Both are
    # found by bisection: what is enough stays enough when there is more of it.
    count = len(_cuts(lengths, budget, most))

    def enough(tokens: int, items: int) -> bool:
        return len(_cuts(lengths, tokens, items)) <= count

    least = max(lengths)
    budget = least + bisect_left(range(least, budget), True, key=lambda tokens: enough(tokens, most))
    most = 1 + bisect_left(range(1, most), True, key=lambda items: enough(budget, items))
    return _cuts(lengths, budget, most)


def _cuts(lengths: Sequence[int], budget: int, most: int) -> list[tuple[int, int]]:
    """Runs filled one after the other, each as far as it goes."""
    cuts, start, used = [], 0, 0
    for position, length in enumerate(lengths):
        if used + length > budget or position - start == most:
            cuts.append((start, position))
            start, used = position, 0
        used += length
    return [*cuts, (start, len(lengths))]
