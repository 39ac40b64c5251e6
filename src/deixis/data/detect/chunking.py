"""Class names in prompts that a model can read: chunks of them, and negatives drawn for training."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from deixis.batch_records import Prompt
from deixis.data.detect.prompts import MAX_TEXT_LEN, PromptTokenizer, build_prompt, check_distinct, normalise_name
from deixis.errors import PromptError
from deixis.records import Sample

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


def choose_names(
    sample: Sample,
    generator: np.random.Generator,
    tokenizer: PromptTokenizer,
    max_text_len: int,
    max_names: int | None = None,
) -> tuple[str, ...]:
    """The names to ask a training image for, in the vocabulary's order.

    The whole vocabulary, without drawing, where it fits and all of it has been looked for. Else the image's own classes
    and, as far as there is room, `Sample.known_absent_class_ids` drawn at random. Where neither exists, any one name:
    it is not judged in this image, so unmatched queries learn nothing of it (`Target.unjudged_class_ids`).

    Args:
        sample: its own classes fit into a prompt (`fit_objects`). Classes of which it shows a crowd alone are neither
            its own nor absent: they are not asked for.
        max_text_len: maximum number of tokens of a prompt, special ones included.
        max_names: maximum number of names of a prompt; exceeded only where the image itself shows more.

    Raises:
        PromptError: an own class is longer than a whole prompt.
    """
    names = sample.vocabulary.names
    costs = np.array([name_cost(name, tokenizer) for name in names])  # [names], in tokens
    budget, most = max_text_len - SPECIAL_TOKENS, max_names or len(names)
    if sample.absent_class_ids is None and len(names) <= most and costs.sum() <= budget:
        return names
    chosen = _own_classes(sample)
    for i in chosen:
        require_fit(names[i], int(costs[i]), max_text_len)
    room = budget - int(costs[chosen].sum())
    absent = np.array(sorted(sample.known_absent_class_ids), np.int64)
    for i in generator.permutation(absent).tolist():  # a long name that does not fit may be followed by a short one
        if len(chosen) >= most:
            break
        if costs[i] <= room:
            chosen.append(i)
            room -= int(costs[i])
    if not chosen:
        chosen = [int(generator.integers(len(names)))]
    return tuple(names[i] for i in sorted(chosen))


def fit_objects(
    sample: Sample, generator: np.random.Generator, tokenizer: PromptTokenizer, max_text_len: int
) -> Sample:
    """The sample itself where a prompt can hold all of its own classes; else without those that one does not hold.

    Which classes stay is drawn anew each time, so that over the epochs all have their turn. The others count as
    unknown, not as absent.
    """
    if fits(sample, tokenizer, max_text_len):
        return sample
    warnings.warn(
        "an image shows more classes than a prompt holds; some of them, drawn anew each time, are asked for",
        stacklevel=2,
    )
    costs = {i: name_cost(sample.vocabulary.names[i], tokenizer) for i in _own_classes(sample)}
    kept, room = set(), max_text_len - SPECIAL_TOKENS
    for i in generator.permutation(list(costs)).tolist():
        require_fit(sample.vocabulary.names[i], costs[i], max_text_len)
        if costs[i] <= room:
            kept.add(i)
            room -= costs[i]
    instances = sample.instances.select(np.isin(sample.instances.class_ids, list(kept)) | sample.instances.is_crowd)
    return sample.evolve(instances=instances, absent_class_ids=sample.known_absent_class_ids)


def fits(sample: Sample, tokenizer: PromptTokenizer, max_text_len: int) -> bool:
    """Whether one prompt can ask for all classes of a sample's objects."""
    costs = (name_cost(sample.vocabulary.names[i], tokenizer) for i in _own_classes(sample))
    return sum(costs) <= max_text_len - SPECIAL_TOKENS


@lru_cache(maxsize=1 << 17)
def name_cost(name: str, tokenizer: PromptTokenizer) -> int:
    """Tokens that a name takes in a prompt, its delimiter included."""
    return len(name_tokens(name, tokenizer))


def _own_classes(sample: Sample) -> list[int]:
    return sorted(set(sample.instances.class_ids[~sample.instances.is_crowd].tolist()))
