"""Similarity of a caption to reference captions: the COCO evaluation's tokenisation, and CIDEr-D in float64.

CIDEr-D (Vedantam et al., arXiv 1411.5726, eq. 4) as the COCO caption evaluation computes it: cosine similarity of
clipped tf-idf vectors of 1- to 4-grams, times a Gaussian penalty on the difference in length (σ = 6), times 10; the
mean over references and n. Document frequencies come from the references of all captions, so a score depends on the
whole set; for a set of one caption it is 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

LONGEST_NGRAM, LENGTH_SIGMA = 4, 6.0

# Penn Treebank tokens, as far as they occur in captions: abbreviations, numbers, words joined by hyphens or slashes.
_WORD = re.compile(r"n't\b|(?:[^\W\d_]\.){2,}|\d+(?:[.,:]\d+)+|\w+(?:[-/]\w+)*|'(?:s|m|d|re|ve|ll)\b|[%$#&/]")
_CONTRACTED = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))\b|(?<=\bcan)(?=not\b)")
Ngrams = Counter[tuple[str, ...]]


def words_of_caption(text: str) -> list[str]:
    """Lower-case words; contractions are split and punctuation is dropped.

    >>> words_of_caption("A man's T-shirt, red; he can't see 3.5 m.")
    ['a', 'man', "'s", 't-shirt', 'red', 'he', 'ca', "n't", 'see', '3.5', 'm']
    """
    return _WORD.findall(_CONTRACTED.sub(r" \1", text.lower().replace("’", "'")))


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each caption, from 0 to 10; their mean is the set's.

    Args:
        references: one or more per caption.

    >>> [round(score, 2) for score in cider_d(["a red cat", "two dogs"], [["a red cat"], ["a blue car"]])]
    [7.5, 0.0]
    """
    reference_ngrams = [[_ngrams(words_of_caption(text)) for text in texts] for texts in references]
    # the number of images in whose references an n-gram occurs
    documents = Counter(ngram for texts in reference_ngrams for ngram in {ngram for text in texts for ngram in text})
    log_count = math.log(len(references)) if references else 0.0

    def tf_idf(ngrams: Ngrams) -> list[dict[tuple[str, ...], float]]:
        """tf-idf by n-gram length: count * log(images / images with the n-gram), equation 1 without normalisation."""
        by_length: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST_NGRAM)]
        for ngram, count in ngrams.items():
            by_length[len(ngram) - 1][ngram] = count * (log_count - math.log(max(1, documents[ngram])))
        return by_length

    scores = []
    for caption, texts in zip(captions, reference_ngrams, strict=True):
        candidate = _ngrams(words_of_caption(caption))
        similar = [_similarity(tf_idf(candidate), tf_idf(text), _length(candidate) - _length(text)) for text in texts]
        scores.append(10 * sum(similar) / len(similar))
    return scores


def _ngrams(words: Sequence[str]) -> Ngrams:
    return Counter(
        tuple(words[start : start + n]) for n in range(1, LONGEST_NGRAM + 1) for start in range(len(words) - n + 1)
    )


def _length(ngrams: Ngrams) -> int:
    """The number of bigrams, which the COCO evaluation uses as the length."""
    return sum(count for ngram, count in ngrams.items() if len(ngram) == 2)


def _similarity(
    candidate: list[dict[tuple[str, ...], float]], reference: list[dict[tuple[str, ...], float]], longer: int
) -> float:
    """CIDEr-D, eq. 4, the mean over n: clipped dot product over the norms, times exp(-longer² / 2σ²)."""
    total = 0.0
    for ours, theirs in zip(candidate, reference, strict=True):
        norm = math.sqrt(sum(v * v for v in ours.values())) * math.sqrt(sum(v * v for v in theirs.values()))
        # clipping at the reference's count: repeating a word earns nothing
        shared = sum(min(value, theirs[ngram]) * theirs[ngram] for ngram, value in ours.items() if ngram in theirs)
        total += shared / norm if norm else 0.0
    return total / LONGEST_NGRAM * math.exp(-(longer**2) / (2 * LENGTH_SIGMA**2))
