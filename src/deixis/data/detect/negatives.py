"""Which names a training image is asked for, when it cannot or must not be asked for all of them.

An image's own classes are always asked; the rest of the prompt are classes that it surely does not show. In federated
data (LVIS, Open Images) those are the ones that somebody looked for: of all others nothing is known, and asking for
them would teach the model to overlook what is there.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np

from deixis.data.detect.chunking import SPECIAL_TOKENS, name_tokens, require_fit
from deixis.data.detect.prompts import PromptTokenizer
from deixis.records import Sample


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
    costs = np.array([name_cost(name, tokenizer) for name in names])
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
