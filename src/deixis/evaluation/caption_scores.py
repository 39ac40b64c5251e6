"""How near a caption is to reference captions: words as the COCO evaluation splits them, and CIDEr-D in float64.

CIDEr-D (Vedantam et al., arXiv 1411.5726) as the COCO caption evaluation computes it: tf-idf of 1- to 4-grams over the
references of all captions, clipped, with a Gaussian penalty on length (σ = 6), times 10; a mean over references and n.
It depends on the whole set that is measured, and is 0 for a set of one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

LONGEST_NGRAM, LENGTH_SIGMA = 4, 6.0

# The Penn Treebank's words, as far as captions have them: abbreviations, numbers, words joined by hyphens or slashes.
_WORD = re.compile(r"n't\b|(?:[^\W\d_]\.){2,}|\d+(?:[.,:]\d+)+|\w+(?:[-/]\w+)*|'(?:s|m|d|re|ve|ll)\b|[%$#&/]")
_CONTRACTED = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))\b|(?<=\bcan)(?=not\b)")
Ngrams = Counter[tuple[str, ...]]


def words_of_caption(text: str) -> list[str]:
    """Lower-case words, contractions apart; punctuation is dropped.

    >>> words_of_caption("A man's T-shirt, red; he can't see 3.5 m.")
    ['a', 'man', "'s", 't-shirt', 'red', 'he', 'ca', "n't", 'see', '3.5', 'm']
    """
    return _WORD.findall(_CONTRACTED.sub(r" \1", text.lower().replace("’", "'")))


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each caption, from 0 to 10; their mean is that of the set.

    Args:
        references: one or more for each caption.
    """
    cooked = [[_ngrams(words_of_caption(text)) for text in texts] for texts in references]
    documents = Counter(ngram for texts in cooked for ngram in {ngram for text in texts for ngram in text})
    log_count = math.log(len(references)) if references else 0.0

    def weighed(ngrams: Ngrams) -> list[dict[tuple[str, ...], float]]:
        """tf-idf by length of n-gram."""
        by_length: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST_NGRAM)]
        for ngram, count in ngrams.items():
            by_length[len(ngram) - 1][ngram] = count * (log_count - math.log(max(1, documents[ngram])))
        return by_length

    scores = []
    for caption, texts in zip(captions, cooked, strict=True):
        said = _ngrams(words_of_caption(caption))
        similar = [_similarity(weighed(said), weighed(text), _length(said) - _length(text)) for text in texts]
        scores.append(10 * sum(similar) / len(similar))
    return scores


def _ngrams(words: Sequence[str]) -> Ngrams:
    return Counter(
        tuple(words[start : start + n]) for n in range(1, LONGEST_NGRAM + 1) for start in range(len(words) - n + 1)
    )


def _length(ngrams: Ngrams) -> int:
    """Bigrams: what the COCO evaluation takes for the length."""
    return sum(count for ngram, count in ngrams.items() if len(ngram) == 2)


def _similarity(
    said: list[dict[tuple[str, ...], float]], wanted: list[dict[tuple[str, ...], float]], longer: int
) -> float:
    total = 0.0
    for ours, theirs in zip(said, wanted, strict=True):
        norm = math.sqrt(sum(v * v for v in ours.values())) * math.sqrt(sum(v * v for v in theirs.values()))
        shared = sum(min(value, theirs[ngram]) * theirs[ngram] for ngram, value in ours.items() if ngram in theirs)
        total += shared / norm if norm else 0.0
    return total / LONGEST_NGRAM * math.exp(-(longer**2) / (2 * LENGTH_SIGMA**2))
