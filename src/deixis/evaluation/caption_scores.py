"""How near a caption is to reference captions: CIDEr-D and METEOR, in float64.

CIDEr-D (Vedantam et al., arXiv 1411.5726) as the COCO caption evaluation computes it: tf-idf of 1- to 4-grams over the
references of all captions, clipped, with a Gaussian penalty on length (σ = 6), times 10; a mean over references and n.
It depends on the whole set that is measured, and is 0 for a set of one.

METEOR is a stand-in: words match exactly or by stem, where the original also takes WordNet's synonyms and a table of
paraphrases; α = 0.9, β = 3, γ = 0.5 as in Lavie and Agarwal (2007). Stems lose plurals, -ed and -ing (Porter's first
step), not all of Porter's endings. docs/captions.md says how far it is from others.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

LONGEST_NGRAM, LENGTH_SIGMA = 4, 6.0
ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
Ngrams = Counter[tuple[str, ...]]


def words_of_caption(text: str) -> list[str]:
    """Lower-case words; punctuation is none.

    >>> words_of_caption("A man's T-shirt, red.")
    ['a', "man's", 't-shirt', 'red']
    """
    return _WORD.findall(text.lower())


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


def meteor(caption: str, references: Sequence[str]) -> float:
    """METEOR of a caption, from 0 to 1: that of the reference it fits best."""
    return max(_meteor(words_of_caption(caption), words_of_caption(text)) for text in references)


def stem(word: str) -> str:
    """A word without its plural, -ed or -ing: step 1 of Porter (1980).

    >>> [stem(word) for word in ("ponies", "crosses", "stars", "hopping", "agreed", "sky", "sing")]
    ['poni', 'cross', 'star', 'hop', 'agree', 'sky', 'sing']
    """
    for ending, instead in (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")):
        if word.endswith(ending):
            word = word.removesuffix(ending) + instead
            break
    if word.endswith("eed"):
        word = word[:-1] if _measure(word[:-3]) else word
    else:
        for ending in ("ed", "ing"):
            rest = word.removesuffix(ending)
            if rest != word and any(_is_vowel(rest, i) for i in range(len(rest))):
                word = _repaired(rest)
                break
    if word.endswith("y") and any(_is_vowel(word, i) for i in range(len(word) - 1)):
        word = word[:-1] + "i"
    return word[:-1] if word.endswith("e") and _measure(word[:-1]) > 1 else word


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


def _meteor(said: list[str], wanted: list[str]) -> float:
    pairs = _aligned(said, wanted)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(said), len(pairs) / len(wanted)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    chunks = 1 + sum(after != (i + 1, j + 1) for (i, j), after in pairwise(pairs))
    return mean * (1 - GAMMA * math.pow(chunks / len(pairs), BETA))


def _aligned(said: list[str], wanted: list[str]) -> list[tuple[int, int]]:
    """Pairs of places, each place once, in the order of the caption: equal words first, then equal stems. Of several
    places a word could go to, it goes on where the word before it stands, or takes the first."""
    places: dict[int, int] = {}
    for same in (str, stem):
        left, right = [same(word) for word in said], [same(word) for word in wanted]
        for i, word in enumerate(left):
            free = [j for j, other in enumerate(right) if other == word and j not in places.values()]
            if i not in places and free:
                following = places.get(i - 1, -2) + 1
                places[i] = following if following in free else free[0]
    return sorted(places.items())


def _is_vowel(word: str, place: int) -> bool:
    if word[place] == "y":
        return place > 0 and not _is_vowel(word, place - 1)
    return word[place] in "aeiou"


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant."""
    vowels = [_is_vowel(word, place) for place in range(len(word))]
    return sum(before and not after for before, after in pairwise(vowels))


def _repaired(word: str) -> str:
    """What stands where -ed or -ing stood."""
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if len(word) > 1 and word[-1] == word[-2] and not _is_vowel(word, len(word) - 1) and word[-1] not in "lsz":
        return word[:-1]
    consonants = len(word) > 2 and [_is_vowel(word, len(word) - 3 + i) for i in range(3)] == [False, True, False]
    return word + "e" if _measure(word) == 1 and consonants and word[-1] not in "wxy" else word
