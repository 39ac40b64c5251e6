"""Both models together: which mask a box gets, what a caption is called, frames of coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from small_segmenters import tiny_segmenter

from deixis.errors import DataError, OptionError, PromptError
from deixis.inference.annotator import Annotator, noun_phrase
from deixis.inference.refer.prompted_masks import PromptedMasks, distinct_masks
from deixis.inference.refer.segmenter import Segmenter
from deixis.refer_records import Segmentation
from deixis.results.detections import Detections

IMAGE = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def rectangle(left: int, top: int, right: int, bottom: int, size_hw: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    mask[top:bottom, left:right] = True
    return mask


def rle(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(tiny_segmenter(seed=3), max_tiles=1)


class Detects:
    """A detector that finds what it is told."""

    def __init__(self, boxes: list[list[float]], labels: list[int]) -> None:
        self.boxes, self.labels, self.asked = np.array(boxes, np.float32).reshape(-1, 4), labels, []

    def predict(self, images, names, threshold, max_detections):
        self.asked.append((tuple(names), threshold, max_detections))
        self.given = names
        scores = np.linspace(0.9, 0.5, len(self.boxes), dtype=np.float32)
        return [Detections(self.boxes, scores, np.array(self.labels, np.int64), tuple(names), 0, (60, 80))]


def masks_as_prompted(prompted, logits: torch.Tensor, ious: torch.Tensor, phrase: np.ndarray, monkeypatch) -> None:
    """SAM 2 gives the same masks to every prompt, every phrase means the same."""
    monkeypatch.setattr(prompted, "_ask", lambda pixels, prompts, ask: [(logits, ious)] * len(prompts))
    monkeypatch.setattr(
        prompted.segmenter,
        "run",
        lambda dataset: iter([(None, [Segmentation(e.texts[0], rle(phrase), 0.4) for e in dataset[0].expressions])]),
    )


def test_the_mask_that_fits_the_box_is_taken(segmenter, monkeypatch) -> None:
    prompted = PromptedMasks(segmenter)
    side = segmenter.bundle.mask_px
    logits = -torch.ones(3, side, side)
    logits[0], logits[1, :4, :4], logits[2, :8, :8] = 1, 1, 1  # everything; 20 x 15 px; 40 x 30 px
    phrase = rectangle(60, 40, 80, 60) | rectangle(50, 0, 56, 8)  # two things of one name
    masks_as_prompted(prompted, logits, torch.tensor([0.9, 0.1, 0.2]), phrase, monkeypatch)
    boxes = np.array([[0, 0, 20, 15], [0, 0, 40, 30], [61, 41, 80, 60], [50, 0, 55, 8]], np.float32)
    found = prompted.in_boxes(IMAGE, boxes, ["cup"] * 4)
    assert [mask.prompt for mask in found] == ["box", "box", "phrase", "phrase"]
    assert [mask.predicted_iou for mask in found] == pytest.approx([0.1, 0.2, 0.4, 0.4])
    assert all(mask.fit > 0.7 for mask in found)
    assert np.array_equal(coco_mask.decode(found[3].mask_rle).astype(bool), rectangle(50, 0, 56, 8))
    assert prompted.in_boxes(IMAGE, boxes[:0], []) == []


def test_the_mask_that_agrees_with_the_clicks_is_taken(segmenter, monkeypatch) -> None:
    prompted = PromptedMasks(segmenter)
    side = segmenter.bundle.mask_px
    logits = -torch.ones(3, side, side)
    logits[0], logits[1, :4, :4], logits[2, :8, :8] = 1, 1, 1  # everything; 20 x 15 px; 40 x 30 px
    seen = []

    def ask(pixels, prompts, function):
        seen.append(prompts.tolist())
        return [(logits, torch.tensor([0.9, 0.1, 0.2]))]

    monkeypatch.setattr(prompted, "_ask", ask)
    clicks = np.array([[10.0, 10], [30, 25], [70, 50]])
    found = prompted.at_clicks(IMAGE, clicks, np.array([True, True, False]), np.array([0.0, 0, 40, 30]))
    assert (found.prompt, found.predicted_iou) == ("clicks", pytest.approx(0.2))
    assert seen == [[[10, 10, 30, 25, 70, 50, 0, 0, 40, 30]]], "points and box of one prompt"
    edge = prompted.at_clicks(IMAGE, np.array([[float(IMAGE.shape[1]), float(IMAGE.shape[0])]]), np.array([True]))
    assert edge.predicted_iou == pytest.approx(0.9), "the border belongs to the last pixel"


def test_prompts_are_in_the_frame_of_sams_square(segmenter, monkeypatch) -> None:
    seen = []

    def ask(sam, prompts, levels, image_of_object):
        seen.append(prompts)
        from deixis.models.sa2va import masks_of_boxes

        return masks_of_boxes(sam, prompts, levels, image_of_object)

    prompted = PromptedMasks(segmenter)
    prompted._ask(IMAGE, torch.tensor([[8.0, 6.0, 80.0, 60.0]] * 40), ask)
    assert [len(part) for part in seen] == [32, 8]
    assert seen[0][0].tolist() == pytest.approx([6.4, 6.4, 64, 64])


def test_copies_of_better_masks_are_left_out() -> None:
    shapes = [(0, 0, 20, 20), (0, 0, 20, 19), (40, 0, 60, 20), (0, 0, 10, 20)]
    masks = torch.stack([torch.from_numpy(rectangle(*shape)) for shape in shapes])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.6])
    assert distinct_masks(masks, scores, 0.7) == [1, 2, 3]
    assert distinct_masks(masks, scores, 0.48) == [1, 2]  # the half's IoU is 190 / 390
    assert distinct_masks(masks[:0], scores[:0], 0.7) == []


def test_without_names_masks_come_from_the_grid(segmenter) -> None:
    annotator = Annotator(None, segmenter, points=3, min_predicted_iou=0.0, max_objects=3, max_new_tokens=4)
    (first,), (second,) = (annotator.annotate([IMAGE], names) for names in (None, []))
    assert 1 <= len(first.objects) <= 3
    ious = [found.mask.predicted_iou for found in first.objects]
    assert ious == sorted(ious, reverse=True)
    for found, again in zip(first.objects, second.objects, strict=True):
        assert found.detector_score is None
        assert found.mask.prompt == "point"
        assert found.name == noun_phrase(found.caption.text) == again.name
        left, top, width, height = coco_mask.toBbox(found.mask.mask_rle)
        assert found.box_xyxy_px.tolist() == [left, top, left + width, top + height]
        assert 0 <= found.cycle_iou <= 1
        assert found.caption.score < 0
    assert not Annotator(None, segmenter, points=2, min_predicted_iou=1.0).annotate([IMAGE])[0].objects


def test_with_names_objects_are_the_detections(segmenter) -> None:
    detector = Detects([[5, 5, 90, 30], [10, 10, 30, 40]], [1, 0])
    annotator = Annotator(None, segmenter, min_fit=0, threshold=0.2, max_objects=7, max_new_tokens=4)
    annotator.detector = detector
    (found,) = annotator.annotate([IMAGE], ["dog", "red car", "dog"])
    assert detector.asked == [(("dog", "red car"), 0.2, 7)]
    assert len(found.objects) + found.left_out == 2
    for thing in found.objects:
        assert thing.name == ("red car" if thing.detector_score == pytest.approx(0.9) else "dog")
        assert thing.box_xyxy_px[2] <= 80  # cut to the picture
        assert coco_mask.area(thing.mask.mask_rle) > 0
    wordings = {"dog": ["dog", "puppy"], "red car": ["red car"]}
    (worded,) = annotator.annotate([IMAGE], wordings)
    assert detector.given == wordings
    assert [thing.name for thing in worded.objects] == [thing.name for thing in found.objects]
    annotator.min_fit = 1.0
    (strict,) = annotator.annotate([IMAGE], ["dog", "red car"])
    assert (strict.objects, strict.left_out) == ((), 2)
    annotator.detector = Detects([], [])
    (nothing,) = annotator.annotate([IMAGE], ["dog"])
    assert (nothing.objects, nothing.left_out) == ((), 0)


def test_modes_are_left_as_they_were(segmenter) -> None:
    segmenter.bundle.model.sam.train()
    try:
        Annotator(None, segmenter, points=1, max_new_tokens=2).annotate([IMAGE])
        assert segmenter.bundle.model.sam.mask_decoder.training
        assert not segmenter.bundle.model.vlm.training
    finally:
        segmenter.bundle.model.eval()


def test_what_cannot_be_meant_is_one_clear_error(segmenter) -> None:
    annotator = Annotator(None, segmenter)
    with pytest.raises(PromptError, match="need a detector"):
        annotator.annotate([IMAGE], ["dog"])
    with pytest.raises(PromptError, match=r"write \['dog'\]"):
        annotator.annotate([IMAGE], "dog")
    with pytest.raises(PromptError, match="blank"):
        annotator.annotate([IMAGE], ["dog", " "])
    with pytest.raises(DataError, match=r"a\.jpg: no such file or folder"):
        annotator.annotate("a.jpg")
    with pytest.raises(OptionError, match="at least 1"):
        Annotator(None, segmenter, points=0)


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("The red car in front of a house.", "red car"),
        ("a well-worn, brown dog's bed", "well-worn brown dog's bed"),
        ("a cup of tea", "cup"),
        ("left shoe", "left shoe"),
        ("the", "object"),
        (" ... ", "object"),
        ("红色的车", "红色的车"),
    ],
)
def test_names_from_captions(caption: str, name: str) -> None:
    assert noun_phrase(caption) == name


def test_a_stream_of_frames_has_no_end(segmenter) -> None:
    """Each frame is answered before the next is taken, as one by one."""
    annotator = Annotator(None, segmenter, points=1, min_predicted_iou=0.0, max_objects=1, max_new_tokens=2)
    taken: list[int] = []

    def endless():
        while True:
            taken.append(len(taken))
            yield IMAGE

    stream = annotator.stream(endless())
    (picture, first), (_, second) = next(stream), next(stream)
    assert taken == [0, 1]
    assert np.array_equal(picture.load(), IMAGE)
    (alone,) = annotator.annotate(IMAGE)
    assert [one.caption.text for one in first.objects] == [one.caption.text for one in alone.objects]
    assert second.size_hw == alone.size_hw == IMAGE.shape[:2]
    with pytest.raises(PromptError, match="names must be a list"):
        annotator.stream(IMAGE, "star")
