"""The segmenter as a user calls it: each image read once for all its phrases, and the same answers as one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from small_segmenters import tiny_segmenter

from deixis.data.conversation import single_turn
from deixis.data.tiles import squashed, tiles_of
from deixis.inference.segmenter import Segmenter, enlarged
from deixis.models.sa2va import select_mask
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
    return Segmenter(tiny_segmenter(behaviour=request.param), most_tiles=3)


@torch.no_grad()
def one_by_one(segmenter: Segmenter, sample: ReferSample, text: str) -> tuple[np.ndarray, float]:
    """A forward pass of the whole model for one phrase."""
    bundle = segmenter.bundle
    tiles = torch.from_numpy(tiles_of(sample.image, bundle.tile_px, segmenter.most_tiles))
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
    return enlarged(chosen.logits[0], sample.size_hw) & there, float(chosen.ious[0])


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
