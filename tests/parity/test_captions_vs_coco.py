"""Figures of captions equal those of the COCO caption evaluation, from its own tokenizer to its own corpus figures."""

from __future__ import annotations

import contextlib
import io
import shutil

import pytest

from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.evaluation.caption_scores import cider_d, words_of_caption
from deixis.evaluation.meteor import corpus_meteor

pytestmark = pytest.mark.slow  # Java loads for ten seconds

pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is absent; pip install 'deixis[captions]'")
if shutil.which("java") is None:
    pytest.skip("there is no Java to run METEOR 1.5 and the Penn Treebank tokenizer", allow_module_level=True)

CAPTIONS = [
    "two kids play", "the small blue star left of the ring", "A man's T-shirt, red.", "he can't see the dogs' bowl",
    "a 3.5 inch screen, with 1,000 dots", "the black-and-white cat", "left/right guy", "50% of the $5 note & more",
    "the U.S. flag at 12:30", "guy in #23 jersey", "women’s shoes; they're red", "café au lait", "the 2nd from left!",
    "", "the the the the", "a purple automobile", "running man", "it's the largest one that cannot move",
]  # fmt: skip
REFERENCES = [
    ["two children play"], ["the little blue star to the left of the ring", "small star"],
    ["the man's red t-shirt", "red shirt of a man", "a t-shirt"], ["he cannot see the bowl of the dogs"],
    ["a screen of 3.5 inches with 1,000 dots"], ["the cat that is black and white", "black-and-white cat"],
    ["the guy left/right"], ["more than 50% of the note & $5"], ["the flag of the U.S."], ["the guy wearing #23"],
    ["women's red shoes"], ["a coffee with milk"], ["the second man from the left"], ["nothing was said"], ["the star"],
    ["a purple car", "a violet vehicle"], ["the man who runs"], ["the biggest one, it doesn't move"],
]  # fmt: skip


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """(words of every text, CIDEr-D of each, METEOR of the whole) by pycocoevalcap alone."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with contextlib.redirect_stdout(io.StringIO()):
        said = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(CAPTIONS)})
        wanted = PTBTokenizer().tokenize({i: [{"caption": t} for t in texts] for i, texts in enumerate(REFERENCES)})
        _, cider = Cider().compute_score(wanted, said)
        whole, single = Meteor().compute_score(wanted, said)
    return said, wanted, [float(value) for value in cider], whole, single


def test_words_are_the_treebanks(coco) -> None:
    said, wanted, *_ = coco
    for i, (caption, texts) in enumerate(zip(CAPTIONS, REFERENCES, strict=True)):
        assert [" ".join(words_of_caption(text)) for text in (caption, *texts)] == [*said[i], *wanted[i]]


def test_cider_d(coco) -> None:
    assert cider_d(CAPTIONS, REFERENCES) == pytest.approx(coco[2], abs=1e-9)


def test_meteor_of_the_corpus_and_of_single_captions(coco) -> None:
    *_, whole, single = coco
    places = range(len(CAPTIONS))
    found = corpus_meteor(CAPTIONS, REFERENCES, [places, [0], [1], [15], [0, 1]])
    assert found.name == "METEOR", found.reason
    assert found.values[:4] == pytest.approx((whole, single[0], single[1], single[15]), abs=1e-12)
    assert single[0] == pytest.approx(0.914, abs=5e-4)  # a synonym: 0.333 by words and stems alone
    assert found.values[4] not in (single[0], single[1])


def test_many_captions_odd_ones_among_them() -> None:
    """Each phrase of some scenes against the one before it: thousands of captions in one process."""
    scenes = refer_scenes("refer_seen", 60, 3)
    texts = [t for i in range(60) for e in scenes[i].expressions for t in e.texts if e.masks_rle]
    odd = ["", "|||", "a\nb ||| c", "\ud800", "the " * 300, "\u2028", "他" * 50]
    captions = [*texts[1:], *odd, texts[0]]
    references = [[text] for text in [*texts, *("a phrase " * (i + 1) for i in range(len(odd)))]]
    found = corpus_meteor(captions, references, [range(len(captions))])
    assert found.reason == ""
    assert 0.1 < found.values[0] < 0.9
