"""The memory learns: it follows a moving square, and says when it is gone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_trackers import SIDE, random_video_sam, square_masks, tiny_tracker, video_config
from torch import Tensor
from transformers import Sam2VideoModel

from deixis.errors import ModelError
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import freeze, part_of
from deixis.models.sa2va.memory import see_masks, see_next
from deixis.models.sa2va.memory_bank import MemoryBank
from deixis.models.sa2va.parts import MEMORY
from deixis.models.sa2va.sam import encode_image
from deixis.models.sa2va.unroll import unroll
from deixis.models.small_segmenter import small_segmenter, with_memory
from deixis.training.memory import memory_losses


def moving_squares() -> tuple[Tensor, Tensor]:
    """Four frames with two squares that move apart; the second is gone in the last. Pixels and masks."""
    masks = torch.stack([square_masks((4 + 10 * i, 4 + 8 * i), (40 - 10 * i, 40)) for i in range(4)])
    masks[3, 1] = False
    pixels = torch.full((4, 3, SIDE, SIDE), -1.0)
    for frame, (first, second) in enumerate(masks):
        pixels[frame, 0, second] = 1.5
        pixels[frame, 2, first] = 1.5
    return pixels, masks


def test_a_few_steps_teach_the_memory_to_follow() -> None:
    torch.manual_seed(0)
    sam = Sam2VideoModel(video_config(layers=1))
    pixels, masks = moving_squares()
    criterion = ReferCriterion(points=None)
    optimiser = torch.optim.AdamW(sam.parameters(), lr=1e-3, weight_decay=0.0)
    history = []
    for _ in range(60):
        losses = memory_losses(sam, criterion, encode_image(sam, pixels), masks)
        total = criterion.total(losses)
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimiser.step()
        history.append((float(total), float(losses["iou"])))
    print(history[:: max(1, 60 // 10)], history[-1])
    assert history[0][1] < 0.5
    assert history[-1][1] > 0.8
    # As it is used: step by step, in evaluation mode.
    sam.eval()
    with torch.no_grad():
        levels = [encode_image(sam, frame[None]) for frame in pixels]
        banks = [MemoryBank(sam) for _ in range(2)]
        given = see_masks(sam, levels[0], masks[0])
        for row, bank in enumerate(banks):
            bank.prompt(0, given, row)
        for frame in (1, 2, 3):
            seen = see_next(sam, levels[frame], banks, frame)
            for row, bank in enumerate(banks):
                bank.add(frame, seen, row)
    assert (seen.object_scores > 0).tolist() == [True, False]
    assert not (seen.logits[1] > 0).any()


def test_the_unrolled_clip_is_what_inference_sees() -> None:
    sam = random_video_sam(seed=1)
    pixels, masks = moving_squares()
    prompts = {0: masks[0], 3: masks[3]}  # the second square is not given in frame 3
    with torch.no_grad():
        levels = encode_image(sam, pixels)
        found = unroll(sam, levels, prompts)
        banks = [MemoryBank(sam, dtype=torch.float32) for _ in range(2)]
        one = [encode_image(sam, frame[None]) for frame in pixels]
        banks[0].prompt(0, see_masks(sam, one[0], masks[0]), 0)
        banks[1].prompt(0, see_masks(sam, one[0], masks[0]), 1)
        banks[0].prompt(3, see_masks(sam, one[3], masks[3]), 0)
        for frame in (1, 2):
            seen = see_next(sam, one[frame], banks, frame)
            rows = found.frame == frame
            best = found.pred_ious[rows].argmax(1)
            torch.testing.assert_close(found.object_scores[rows], seen.object_scores, rtol=1e-4, atol=1e-4)
            if (seen.object_scores > 0).all():
                mine = found.pred_masks[rows][torch.arange(2), best]
                torch.testing.assert_close(mine, seen.logits, rtol=1e-3, atol=1e-3)
            for row, bank in enumerate(banks):
                bank.add(frame, seen, row)
    assert found.frame.tolist() == [1, 1, 2, 2]
    assert found.object_index.tolist() == [0, 1, 0, 1]


def test_an_object_given_nowhere_is_an_error() -> None:
    sam = random_video_sam(seed=1)
    pixels, masks = moving_squares()
    with pytest.raises(ModelError, match="object 1 was never prompted"):
        unroll(sam, encode_image(sam, pixels), {3: masks[3]})


def test_the_memory_is_a_part_that_trains_alone() -> None:
    bundle = tiny_tracker()
    freeze(bundle.model, ("memory",), lora=False)
    trained = {name for name, parameter in bundle.model.named_parameters() if parameter.requires_grad}
    assert trained == {
        name for name, _ in bundle.model.named_parameters() if name.startswith(tuple(f"sam.{m}" for m in MEMORY))
    }
    assert {part_of(name) for name in trained} == {"memory"}
    freeze(bundle.model, lora=False)
    assert not any(part_of(name) == "memory" for name, p in bundle.model.named_parameters() if p.requires_grad)


def test_a_memory_is_added_and_images_stay_as_they_were() -> None:
    torch.manual_seed(0)
    bundle = small_segmenter(("red",), text_layers=1, vision_layers=1)
    before = {name: tensor.clone() for name, tensor in bundle.model.sam.state_dict().items()}
    bundle.model.eval()
    pixels = torch.randn(1, 3, 128, 128)
    prompts: Any = torch.randn(2, bundle.model.vlm.config.text_config.hidden_size)
    with torch.no_grad():
        old = bundle.model.masks(prompts, bundle.model.sam_features(pixels), torch.tensor([0, 0]))
        new = with_memory(bundle).model
        again = new.masks(prompts, new.sam_features(pixels), torch.tensor([0, 0]))
    assert all(torch.equal(new.sam.state_dict()[name], tensor) for name, tensor in before.items())
    assert torch.equal(old.logits, again.logits)
    MemoryBank(new.sam)
