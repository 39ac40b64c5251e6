"""A memory that keeps what phrases mean: what following makes of it."""

from __future__ import annotations

import numpy as np
import torch
from pycocotools import mask as coco_mask
from small_trackers import SIDE, random_video_sam, square_masks, tiny_tracker

from deixis.inference.refer.tracker import Tracker
from deixis.models.sa2va import Sa2vaBundle
from deixis.models.sa2va.memory.attention import decode_next, recall, see_masks, see_next
from deixis.models.sa2va.memory.bank import MemoryBank
from deixis.models.sa2va.sam import decode_masks, encode_image

SCENES = "scenes:split=clip_train,count=5,seed=1"
PHRASES = ["red circle", "the blue square"]


def keeping(seed: int = 1, score_shift: float = 4.0) -> Sa2vaBundle:
    bundle = tiny_tracker(seed=seed)
    bundle.model.sam.config.keeps_phrases = True
    with torch.no_grad():
        bundle.model.sam.mask_decoder.pred_obj_score_head.proj_out.bias += score_shift
    return bundle


def test_without_memory_a_kept_phrase_is_what_an_image_shows() -> None:
    """Where attention gives a frame back as it came, the answer is the one that the frame gets by itself."""
    sam = random_video_sam(seed=2)
    torch.manual_seed(2)
    pixels, meanings = torch.randn(2, 3, SIDE, SIDE), torch.randn(2, 128)
    sam.memory_attention.forward = lambda here, *_: (here + sam.no_memory_embedding).transpose(0, 1)[None]
    with torch.no_grad():
        frames = [encode_image(sam, frame[None]) for frame in pixels]
        seen = see_masks(sam, frames[0], square_masks((4, 4), (40, 40)), meanings)
        banks = [MemoryBank(sam) for _ in range(2)]
        for row, bank in enumerate(banks):
            bank.prompt(0, seen, row, meanings[row])
        followed = see_next(sam, frames[1], banks, 1, suppress=False)
        alone = decode_masks(sam, meanings, frames[1], torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(followed.object_scores, alone.object_scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        followed.logits, alone.logits[torch.arange(2), alone.ious.argmax(1)], rtol=1e-3, atol=1e-3
    )


@torch.no_grad()
def test_the_points_of_a_followed_frame_are_the_phrase_against_what_it_recalls() -> None:
    sam = random_video_sam(seed=1)
    sam.config.points_first = True
    torch.manual_seed(1)
    pixels, masks, meanings = torch.randn(3, 3, SIDE, SIDE), square_masks((4, 4), (40, 40)), torch.randn(2, 128)
    levels = [encode_image(sam, frame[None]) for frame in pixels]
    seen = see_masks(sam, levels[0], masks, meanings)
    banks = [MemoryBank(sam, 1, torch.float32) for _ in range(2)]
    for row, bank in enumerate(banks):
        bank.prompt(0, seen, row, meanings[row])
    found = decode_next(sam, levels[1], banks, 1)
    assert found.points is not None
    assert found.points.shape[0] == 2
    cells = recall(sam, levels[1][2], banks, 1) + sam.get_image_wide_positional_embeddings()
    expected = torch.einsum("oc,ochw->ohw", meanings, cells) / 128**0.5
    torch.testing.assert_close(found.points, expected, atol=1e-4, rtol=1e-4)


def test_phrases_found_nowhere_are_not_followed_and_others_are_judged_in_every_frame() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (7, 30, 50, 3), np.uint8)
    there, gone = Tracker(keeping(), prompt_frames=2), Tracker(keeping(score_shift=-50.0), prompt_frames=2)
    assert all(record.present == 0 for records in gone.track(clip, PHRASES) for record in records)
    tracked = list(there.track(clip, PHRASES))
    assert [record.image_id for record in tracked[3]] == [3, 3]
    assert any(coco_mask.area(record.mask_rle) for records in tracked for record in records)
    plain = keeping()
    plain.model.sam.config.keeps_phrases = False
    others = list(Tracker(plain, prompt_frames=2).track(clip, PHRASES))
    assert tracked[0][0].present != others[0][0].present  # a prompted frame is judged by the memory, too
