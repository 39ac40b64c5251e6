"""The segmenter as a user calls it: each image read once for all its phrases, and the same answers as one by one."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from small_segmenters import tiny_segmenter

from deixis.data.pixels.tiles import squashed, tiles_of
from deixis.data.refer.conversation import single_turn
from deixis.errors import DataError
from deixis.inference.refer.pictures import enlarged, middle_px
from deixis.inference.refer.prompted_masks import PromptedMasks
from deixis.inference.refer.segmenter import Segmenter
from deixis.models.sa2va import ConversationTokens, select_mask
from deixis.models.sa2va.language.answers import Answer
from deixis.models.sa2va.sam import Masks
from deixis.refer_records import Expression, ReferList, ReferSample

PHRASES = ("the red circle", "a blue square", "circle", "the square on the left")


def pictures() -> ReferList:
    """Of one tile and of several; the middle one is asked nothing."""
    generator = np.random.default_rng(0)
    samples = []
    for size_hw, texts in (((60, 70), PHRASES), ((50, 50), ()), ((50, 130), PHRASES[:2])):
        image = generator.integers(0, 255, (*size_hw, 3), dtype=np.uint8)
        samples.append(ReferSample(image, size_hw, tuple(Expression((text,), ()) for text in texts)))
    return ReferList(tuple(samples))


@pytest.fixture(scope="module", params=["deixis", "sa2va"])
def segmenter(request) -> Segmenter:
    return Segmenter(tiny_segmenter(behaviour=request.param), max_tiles=3)


@torch.no_grad()
def one_by_one(segmenter: Segmenter, sample: ReferSample, text: str) -> tuple[np.ndarray, float]:
    """A forward pass of the whole model for one phrase."""
    bundle = segmenter.bundle
    tiles = torch.from_numpy(tiles_of(sample.image, bundle.tile_px, segmenter.max_tiles))
    square = torch.from_numpy(squashed(sample.image, (bundle.sam_px, bundle.sam_px)).transpose(2, 0, 1).copy())
    ids, _ = segmenter.tokens([single_turn(text, bundle.behaviour)], len(tiles))
    outputs = bundle.model(
        bundle.normalise_tiles(tiles),
        (len(tiles),),
        bundle.normalise_sam(square[None]),
        *segmenter.tokens.padded([ids], torch.device("cpu")),
    )
    chosen = select_mask(outputs, bundle.behaviour)
    there = float(chosen.present[0]) >= segmenter.threshold
    mask = enlarged(chosen.logits[0], sample.size_hw, middle_px(bundle))
    return mask & there, float(chosen.ious[0])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_answers_are_those_of_one_phrase_at_a_time(segmenter, batch_size) -> None:
    data, compared = pictures(), 0
    for sample, answers in segmenter.run(data, batch_size):
        assert [answer.text for answer in answers] == [e.texts[0] for e in sample.expressions]
        original = next(one for one in data.samples if one.size_hw == sample.size_hw)
        for answer in answers:
            mask, iou = one_by_one(segmenter, original, answer.text)
            found = coco_mask.decode(answer.mask_rle).astype(bool)
            assert (found != mask).mean() < 0.002  # a pixel at the edge may fall to either side
            assert answer.score == pytest.approx(iou, abs=1e-4)
            compared += 1
    assert compared == 6


def test_each_image_is_read_once(segmenter, monkeypatch) -> None:
    """The language model sees an image's tokens once for all its phrases."""
    seen: list[int] = []
    model = segmenter.bundle.model
    whole = type(model).embed

    def embed(self, input_ids, image_tokens, *more):
        seen.append(len(image_tokens))
        return whole(self, input_ids, image_tokens, *more)

    monkeypatch.setattr(type(model), "embed", embed)
    list(segmenter.run(pictures(), 8))
    assert sum(seen) == 1 + 4  # tiles of the two images that are asked about, a thumbnail among them


@pytest.mark.parametrize("behaviour", ["deixis", "sa2va"])
@pytest.mark.parametrize("segs", [0, 1, 3])
def test_several_segs_of_an_answer_are_one_mask_of_what_is_there(behaviour, segs) -> None:
    """Not the first alone, nor what the model calls absent: that is the second of three, which `sa2va` cannot tell."""
    segmenter = Segmenter(tiny_segmenter(behaviour=behaviour), max_tiles=1)
    logits = torch.full((3, 3, 8, 8), -5.0)
    for number in range(3):
        logits[number, 1, 2 * number] = 5.0  # a row of its own, in the mask of highest predicted IoU
    ious = torch.tensor([[0.1, 0.9, 0.2], [0.1, 0.6, 0.2], [0.1, 0.5, 0.2]])
    masks = Masks(logits, ious, torch.tensor([3.0, -3.0, 3.0]))
    said = Answer("…", [], masks.of(slice(segs)))
    found, iou, present, _ = segmenter._joined(said)
    if segs == 0:
        assert (found, iou, present) == (None, 0.0, 0.0)
        return
    assert found is not None
    rows = {1: [0], 3: [0, 4] if behaviour == "deixis" else [0, 2, 4]}[segs]
    assert (found > 0).any(1).nonzero()[:, 0].tolist() == rows
    there = [0.9, 0.5] if behaviour == "deixis" else [0.9, 0.6, 0.5]
    assert iou == pytest.approx(0.9 if segs == 1 else float(np.mean(there)))
    assert present > 0.9


def test_an_answer_of_absent_things_alone_is_empty() -> None:
    segmenter = Segmenter(tiny_segmenter(), max_tiles=1)
    masks = Masks(torch.full((2, 3, 8, 8), 5.0), torch.full((2, 3), 0.5), torch.tensor([-3.0, -4.0]))
    found, _, present, _ = segmenter._joined(Answer("…", [], masks))
    assert found is None
    assert present < 0.1


def two_steps(logits: np.ndarray, middle: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Enlarged by OpenCV, which samples bilinearly at the same places as align_corners=False."""
    square = cv2.resize(logits, (middle, middle), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(square, size_hw[::-1], interpolation=cv2.INTER_LINEAR) > 0


def noisy(side: int, seed: int = 0) -> np.ndarray:
    """A disc under noise, so that its edge is long."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    disc = 12 * (0.3 - np.hypot(rows, columns))
    return (disc + np.random.default_rng(seed).normal(0, 0.8, (side, side))).astype(np.float32)


@pytest.mark.parametrize("size_hw", [(480, 640), (1500, 900), (300, 200), (1024, 1024)])
def test_released_masks_are_enlarged_by_way_of_sam_2s_square(size_hw: tuple[int, int]) -> None:
    logits = noisy(256)
    found = enlarged(torch.from_numpy(logits), size_hw, 1024)
    wanted = two_steps(logits, 1024, size_hw)
    assert (found != wanted).mean() < 1e-4  # rounding, where a logit is 0 to seven digits
    at_once = enlarged(torch.from_numpy(logits), size_hw)
    assert (at_once != cv2.resize(logits, size_hw[::-1], interpolation=cv2.INTER_LINEAR).__gt__(0)).mean() < 1e-4
    if size_hw == (1024, 1024):
        assert np.array_equal(found, at_once)
    else:
        assert (found != at_once).mean() > 1e-3


@pytest.mark.parametrize("behaviour", ["deixis", "sa2va"])
def test_only_behaviour_sa2va_enlarges_in_two_steps_whoever_asks(behaviour: str, monkeypatch) -> None:
    """Phrases, boxes and grids of points; the model's square has 64 pixels."""
    segmenter = Segmenter(tiny_segmenter(behaviour=behaviour), max_tiles=1)
    logits, size_hw = noisy(16), (90, 130)
    picture = np.zeros((*size_hw, 3), np.uint8)
    side = segmenter.bundle.sam_px
    at_once = cv2.resize(logits, size_hw[::-1], interpolation=cv2.INTER_LINEAR) > 0
    wanted = two_steps(logits, side, size_hw) if behaviour == "sa2va" else at_once
    assert (two_steps(logits, side, size_hw) != at_once).mean() > 1e-3
    one = torch.from_numpy(logits)
    monkeypatch.setattr(segmenter, "_given", lambda asked, *_: [(one, 0.9, 1.0, "")] * len(asked))
    (phrases,) = segmenter.segment([picture], ["a disc", "a circle"])
    prompted = PromptedMasks(segmenter)
    answers = [(one.expand(3, -1, -1), torch.tensor([0.9, 0.1, 0.1]))]
    monkeypatch.setattr(prompted, "_ask", lambda *_: answers)
    monkeypatch.setattr(prompted, "_parts_of_phrases", lambda *_: {"disc": []})
    (boxed,) = prompted.in_boxes(picture, np.array([[0, 0, 130, 90]], np.float32), ["disc"])
    (pointed,) = prompted.on_grid(picture, points_per_side=1)
    for found in (*phrases, boxed, pointed):
        assert np.array_equal(coco_mask.decode(found.mask_rle).astype(bool), wanted)


@pytest.mark.parametrize("generate", [False, True])
@pytest.mark.parametrize("phrase", ["Which one is RED?", "?", "Is it 3.5 m tall? The left one."])
def test_a_question_is_asked_as_it_stands_with_behaviour_sa2va(generate: bool, phrase: str, monkeypatch) -> None:
    asked: list[str] = []
    written = ConversationTokens._question
    monkeypatch.setattr(
        ConversationTokens, "_question", lambda self, text, *more: asked.append(text) or written(self, text, *more)
    )
    for behaviour in ("sa2va", "deixis"):
        segmenter = Segmenter(tiny_segmenter(behaviour=behaviour), max_tiles=1, generate=generate)
        (found,) = segmenter.segment([np.zeros((30, 40, 3), np.uint8)], [phrase, "The RED one."])
        assert [one.text for one in found] == [phrase, "The RED one."]
    plain = phrase.lower().rstrip(".")
    assert asked == [
        f" {phrase} Please respond with a segmentation mask.",
        "Please segment the red one in this image.",
        f"Please segment {plain} in this image.",
        "Please segment the red one in this image.",
    ]


def test_a_stream_takes_frames_as_it_needs_them_and_gives_what_came_before_a_break(segmenter: Segmenter) -> None:
    images = [np.asarray(one.image) for one in pictures().samples]
    taken: list[int] = []

    def broken() -> Iterator[np.ndarray]:
        for number in range(9):
            taken.append(number)
            yield images[number % 3]
        raise DataError("the camera is gone")

    stream = segmenter.stream(broken(), PHRASES[:2], batch_size=2)
    first, second = next(stream), next(stream)
    assert len(taken) <= 5
    found = [first, second]
    with pytest.raises(DataError, match="the camera is gone"):
        found.extend(stream)
    assert [one.size_hw for one in found] == [images[number % 3].shape[:2] for number in range(9)]
    together = []  # eight images a pass: the ninth is read when the camera goes
    with pytest.raises(DataError, match="the camera is gone"):
        together.extend(segmenter.stream(broken(), PHRASES[:1], batch_size=8))
    assert len(together) == 9
    for one, alone in zip(found[:3], segmenter.segment(images, PHRASES[:2], batch_size=2), strict=True):
        assert [(a.text, a.score) for a in one] == [(b.text, pytest.approx(b.score, abs=1e-5)) for b in alone]
        assert one.pixels().shape[:2] == one.size_hw
