"""Kept features of images, of images with close views of their regions, and of clips: those that encoders give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from small_segmenters import tiny_segmenter

from deixis.data.refer.collate import Question, Views, collate_questions
from deixis.data.refer.conversation import Turn
from deixis.models.sa2va import ConversationTokens
from deixis.refer_records import Expression, ReferSample
from deixis.training.processes import make_accelerator
from deixis.training.tasks.frozen_features import FrozenFeatures

TURNS = (Turn("Where is it?", "Sure, it [SEG].", (0,)),)
ASKED = ((0, "it"),)


def sample(seed: int) -> ReferSample:
    mask = np.zeros((60, 60), np.uint8)
    mask[20:24, 30:33] = 1  # so small that a close view of it is shown too
    rle = coco_mask.encode(np.asfortranarray(mask))
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    return ReferSample(pixels, (60, 60), (Expression(("it",), (rle,)),))


QUESTIONS = {
    "image": Question(sample(0), TURNS, ASKED),
    "the same image with a region": Question(sample(0), TURNS, ASKED, (0,)),
    "clip": Question(sample(0), TURNS, ASKED, later=(sample(1), sample(2))),
}


@pytest.mark.parametrize("names", [list(QUESTIONS), list(QUESTIONS)[::-1]])
def test_features_are_those_of_each_question(tmp_path, names) -> None:
    """In one folder, in either order: the same picture is seen in other tiles by each."""
    bundle = tiny_segmenter()
    bundle.model.requires_grad_(False)
    tokens = ConversationTokens.of(bundle)
    views = Views(bundle.tile_px, 1, bundle.sam_px, bundle.mask_px, 4)
    cache = FrozenFeatures(bundle, tmp_path / "seen", 1 << 30, accelerator=make_accelerator(cpu=True))
    shapes = set()
    for name in [*names, *names]:
        batch = collate_questions([QUESTIONS[name]], tokens, views, tokens.pad_token_id, 4096)
        vision, levels = cache.of(batch)
        with torch.no_grad():
            torch.testing.assert_close(vision, bundle.model.vision_features(bundle.normalise_tiles(batch.tiles_u8)))
            for kept, wanted in zip(
                levels, bundle.model.sam_features(bundle.normalise_sam(batch.sam_pixels_u8)), strict=True
            ):
                torch.testing.assert_close(kept, wanted)
        shapes.add((len(vision), len(levels[0])))
    assert shapes == {(1, 1), (2, 1), (3, 3)}
    assert len(list((tmp_path / "seen").iterdir())) == 2  # the image, whatever is asked about it, and the clip


def test_of_an_image_asked_for_no_mask_only_what_is_seen_is_kept(tmp_path) -> None:
    """Until a mask is asked for in it; then it is kept whole, in the same file."""
    bundle = tiny_segmenter()
    bundle.model.requires_grad_(False)
    tokens = ConversationTokens.of(bundle)
    views = Views(bundle.tile_px, 1, bundle.sam_px, bundle.mask_px, 4)
    cache = FrozenFeatures(bundle, tmp_path / "seen", 1 << 30, accelerator=make_accelerator(cpu=True))
    silent = replace(QUESTIONS["image"], asked=(), turns=(Turn("What is it?", "A square.", ()),))
    sizes = []
    asked, clip = QUESTIONS["image"], QUESTIONS["clip"]
    for questions, images, files in (
        ([silent], 1, 1),
        ([silent, clip], 3, 2),
        ([asked], 1, 2),
        ([silent], 1, 2),
        ([silent, asked], 1, 2),
    ):
        batch = collate_questions(questions, tokens, views, tokens.pad_token_id, 4096)
        vision, levels = cache.of(batch)
        torch.testing.assert_close(vision, bundle.model.vision_features(bundle.normalise_tiles(batch.tiles_u8)))
        for kept, wanted in zip(
            levels, bundle.model.sam_features(bundle.normalise_sam(batch.sam_pixels_u8)), strict=True
        ):
            torch.testing.assert_close(kept, wanted)
        assert len(levels[0]) == images
        kept = sorted(path.stat().st_size for path in (tmp_path / "seen").iterdir())
        assert len(kept) == files
        sizes.append(kept[0])
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3] == sizes[4]
