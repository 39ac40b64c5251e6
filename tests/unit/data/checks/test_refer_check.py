"""`refer check`: each kind of finding is found where it is, and only there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import refer_miniatures as mini
from pycocotools import mask as coco_mask

from deixis.data.checks.refer import ConversationLimits, ReferFacts, check_refer
from deixis.data.findings import KINDS, Finding, Findings
from deixis.data.refer.conversation import SEG, Turn, training_turns
from deixis.data.refer_formats import read_refer
from deixis.errors import DataError
from deixis.refer_records import Expression, ReferList, ReferSample

SEG_ID, TILE_TOKENS = 7, 5


def encode(turns: Sequence[Turn], tiles: int) -> tuple[list[int], list[int]]:
    """A token a word, and one for each [SEG]; case as it stands."""
    ids = [1] * (TILE_TOKENS * tiles)
    for turn in turns:
        for word in f"{turn.question} {turn.answer}".replace(SEG, f" {SEG} ").split():
            ids.append(SEG_ID if word == SEG else 2)
    return ids, [-100] * len(ids)


def limits(
    max_tokens: int = 1000, max_masks: int = 5, encode: Any = encode, behaviour: str = "deixis"
) -> ConversationLimits:
    return ConversationLimits(encode, SEG_ID, lambda size_hw: 2, max_tokens, max_masks, behaviour)


def box(x0: int, y0: int, x1: int, y1: int) -> dict[str, Any]:
    bitmap = np.zeros((20, 30), np.uint8)
    bitmap[y0:y1, x0:x1] = 1
    return coco_mask.encode(np.asfortranarray(bitmap))


BIG, OTHER, TINY, EMPTY = box(0, 0, 10, 10), box(10, 10, 20, 20), box(0, 0, 3, 1), box(0, 0, 0, 0)


def data(*expressions: Expression) -> ReferList:
    return ReferList((ReferSample(np.zeros((20, 30, 3), np.uint8), (20, 30), expressions, 4, "here"),))


def check(dataset: Any, *more: Any, **options: Any) -> tuple[ReferFacts, list[Finding]]:
    findings = Findings()
    return check_refer(dataset, findings, *more, **options), findings.found


def kinds(dataset: Any, *more: Any, **options: Any) -> list[str]:
    found = check(dataset, *more, **options)[1]
    assert all(finding.kind in KINDS and finding.message for finding in found)
    return [finding.kind for finding in found]


def test_nothing_is_wrong() -> None:
    facts, found = check(data(Expression(("a", "b"), (BIG, OTHER)), Expression(("none",), ())), limits())
    assert found == []
    assert (facts.images, facts.phrases, facts.masks, facts.absent) == (1, 3, 2, 1)


@pytest.mark.parametrize(
    ("expressions", "wanted"),
    [
        ([Expression(("a",), (EMPTY,))], ["phrase_mask_empty"]),
        ([Expression(("a",), (TINY,))], ["mask_tiny"]),
        ([Expression(("a",), (BIG, EMPTY))], ["mask_tiny"]),
        ([Expression((), (BIG,))], ["mask_wordless", "image_unasked", "no_phrases"]),
        ([], ["image_unasked", "no_phrases"]),
        ([Expression(("the [SEG] one",), (BIG,))], ["phrase_markup"]),
        ([Expression(("<P>it</P>",), (BIG,))], ["phrase_markup"]),
        ([Expression(("It.",), (BIG,)), Expression(("it",), (OTHER,))], ["phrase_ambiguous"]),
        ([Expression(("It.",), (BIG,)), Expression(("it",), (BIG,))], ["phrase_repeated"]),
        ([Expression(("it",), (BIG, OTHER)), Expression(("it",), (OTHER, BIG))], ["phrase_repeated"]),
        ([Expression(("it",), ()), Expression(("it",), (BIG,))], ["phrase_ambiguous"]),
    ],
)
def test_each_kind(expressions: list[Expression], wanted: list[str]) -> None:
    assert kinds(data(*expressions)) == wanted


def test_tiny_is_what_is_said_to_be() -> None:
    assert kinds(data(Expression(("a",), (TINY,))), tiny_px=3) == []
    assert kinds(data(Expression(("a",), (TINY,))), tiny_px=4) == ["mask_tiny"]


def test_the_longest_conversation_is_found_and_told_when_it_would_be_cut() -> None:
    long = " ".join(["word"] * 30)
    dataset = data(Expression(("a", long), (BIG,)), Expression(("b",), (OTHER,)), Expression(("c d",), ()))
    facts, _ = check(dataset, limits())
    # two tiles; "Where is {phrase}? Please answer with a mask." has 7 words besides, "Sure, {phrase} [SEG]." has 3
    assert facts.longest_tokens == 2 * TILE_TOKENS + 3 * (7 + 3) + 2 * (30 + 1 + 2)
    assert kinds(dataset, limits(facts.longest_tokens)) == []
    (found,) = check(dataset, limits(facts.longest_tokens - 2))[1]
    assert (found.kind, found.place) == ("conversation_too_long", "here")
    assert "1 of 3 [SEG] would be lost" in found.message
    assert check(dataset, limits(max_masks=1))[0].longest_tokens == 2 * TILE_TOKENS + 10 + 2 * 30


def test_no_conversation_of_training_is_longer() -> None:
    dataset = data(*(Expression((f"w{i} " * (i + 1), "x"), (BIG,)) for i in range(6)))
    for most in (1, 3, 6):
        longest = check(dataset, limits(max_masks=most))[0].longest_tokens
        for seed in range(40):
            turns, _ = training_turns(dataset[0].expressions, most, np.random.default_rng(seed))
            assert len(encode(turns, 2)[0]) <= longest


def test_a_question_is_counted_as_behaviour_sa2va_asks_it() -> None:
    dataset = data(Expression(("which one of them is it?",), (BIG,)))
    longest = {b: check(dataset, limits(behaviour=b))[0].longest_tokens for b in ("sa2va", "deixis")}
    # "Sure, [SEG]." has 3 words, and "Sure, {phrase} [SEG]." 3 besides the phrase
    assert longest == {"sa2va": 2 * TILE_TOKENS + 6 + 3, "deixis": 2 * TILE_TOKENS + 7 + 6 + 6 + 3}


def test_a_phrase_that_brings_a_seg_of_its_own() -> None:
    def careless(turns: Sequence[Turn], tiles: int) -> tuple[list[int], list[int]]:
        return encode([Turn(turn.question.replace("[seg]", SEG), turn.answer, (0,)) for turn in turns], tiles)

    dataset = data(Expression(("the [SEG] one",), (BIG,)))
    assert kinds(dataset, limits(encode=careless)) == ["phrase_markup", "seg_mismatch"]
    assert kinds(dataset, limits()) == ["phrase_markup"], "lower case is no [SEG] to this tokenizer"


def test_images(tmp_path: Path) -> None:
    entry = {"mask": [[mini.LEFT]], "text": ["it"]}
    path = mini.plain(tmp_path, [{"image": "a.jpg", **entry}, {"image": "b.jpg", "height": 33, "width": 44, **entry}])
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    dataset = read_refer(path)
    found = check(dataset)[1]
    assert [f.kind for f in found] == ["image_unreadable", "size_mismatch"]
    assert found[0].file.endswith("a.jpg")
    assert "is 40x30 pixels (width x height) but annotated as 44x33" in found[1].message
    assert kinds(dataset, decode=False) == []
    assert {f.severity for f in found} == {"error"}


@pytest.mark.parametrize("content", [b"no image", None])
def test_images_that_readers_stumble_over(tmp_path: Path, content: bytes | None) -> None:
    entry = {"mask": [[mini.LEFT]], "text": ["it"]}
    path = mini.plain(tmp_path, [{"image": "a.jpg", **entry}, {"image": "b.jpg", **entry}])
    (tmp_path / "b.jpg").unlink()
    if content is not None:
        (tmp_path / "b.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"b\.jpg"):
        read_refer(path)
    faults: list[str] = []
    assert len(read_refer(path, faults=faults)) == 1
    assert len(faults) == 1
    assert "entry 2 (b.jpg)" in faults[0]


def test_samples_that_cannot_be_read_do_not_end_it(tmp_path: Path) -> None:
    mini.sa1b(tmp_path, (1, 2, 3))
    (tmp_path / "sa_2.json").write_text("{")
    (tmp_path / "sa_3.jpg").unlink()
    done: list[int] = []
    facts, found = check(read_refer(tmp_path), advance=lambda: done.append(1))
    unusable = ["record_malformed", "image_unreadable"]
    assert [f.kind for f in found if f.kind in unusable] == unusable
    assert (facts.images, facts.masks) == (3, 4)
    assert done == [1, 1, 1]


@pytest.mark.parametrize("name", ["coco_cc_instances/instances_coco_tiny_train2017.json", "fruits_nuts_labelme"])
def test_real_sets_have_no_errors(shared_data: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = read_refer(shared_data / name)
    facts, found = check(dataset, limits(), decode=False)
    assert "error" not in {f.severity for f in found}
    assert facts.masks >= 160
