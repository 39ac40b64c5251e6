"""SAM 2's memory: bounded, each object by itself, absent objects, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_trackers import random_clip, random_video_sam, square_masks

from deixis.errors import ModelError
from deixis.models.sa2va.memory.attention import see_masks, see_next, see_prompts
from deixis.models.sa2va.memory.bank import MemoryBank, Seen
from deixis.models.sa2va.sam import decode_masks, encode_image
from deixis.models.sa2va.small import small_segmenter


@pytest.fixture(scope="module")
def sam() -> Any:
    return random_video_sam(seed=1, score_shift=1.0)


def some_seen(objects: int = 2) -> Seen:
    return Seen(*(torch.randn(objects, *shape) for shape in ((16, 16), (), (), (16, 64), (128,))))


def test_two_hundred_frames_are_remembered_in_the_space_of_twenty(sam: Any) -> None:
    bank = MemoryBank(sam, max_prompts=3)
    sizes = {}
    for frame in range(2000):
        if frame % 50 == 0:
            bank.prompt(frame, some_seen(), 1)
        else:
            bank.add(frame, some_seen(), 1)
        sizes[frame] = (len(bank), bank.bytes())
    assert sizes[190] == sizes[290] == sizes[1990]
    assert len(bank) == 3 * 2 + 6 + 15
    # A kept row must not keep the tensor of all objects alive.
    kept = [*bank.spatial.values(), *bank.pointers.values(), *(t for pair in bank.prompted.values() for t in pair)]
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in kept)


def test_the_first_prompt_stays_when_others_are_forgotten(sam: Any) -> None:
    bank = MemoryBank(sam, max_prompts=3)
    for frame in (0, 10, 20, 30, 40):
        bank.prompt(frame, some_seen(), 0)
    assert sorted(bank.prompted) == [0, 30, 40]
    bank.prompt(40, some_seen(), 0)  # again: nothing has to go
    assert sorted(bank.prompted) == [0, 30, 40]


def test_what_a_frame_attends_to(sam: Any) -> None:
    bank = MemoryBank(sam)
    bank.prompt(0, some_seen(), 0)
    bank.prompt(25, some_seen(), 0)
    for frame in range(1, 20):
        bank.add(frame, some_seen(), 0)
    spatial, pointers = bank.recalled(20)
    assert sorted(ago for ago, _ in spatial) == [0, 0, 1, 2, 3, 4, 5, 6]  # a prompt ahead counts, too,
    assert sorted(ago for ago, _ in pointers) == [*range(1, 16), 20]  # but not its pointer
    assert sorted(ago for ago, _ in bank.recalled(23)[0]) == [0, 0, 4, 5, 6]


@torch.no_grad()
def test_objects_that_remember_differently_do_not_meet(sam: Any) -> None:
    clip = [encode_image(sam, pixels[None]) for pixels in random_clip(4)]
    given = see_masks(sam, clip[0], square_masks((0, 0), (40, 8), (20, 20)))

    def banks() -> list[MemoryBank]:
        made = [MemoryBank(sam, dtype=torch.float32) for _ in range(3)]
        for row, bank in enumerate(made):
            bank.prompt(0, given, row)
        made[1].prompt(2, see_masks(sam, clip[2], square_masks((8, 8))), 0)
        return made

    together, alone = banks(), banks()
    for frame in (1, 3):
        seen = see_next(sam, clip[frame], together, frame)
        for row in range(3):
            own = see_next(sam, clip[frame], [alone[row]], frame)
            torch.testing.assert_close(seen.logits[row], own.logits[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(seen.pointers[row], own.pointers[0], rtol=1e-4, atol=1e-4)
            together[row].add(frame, seen, row)
            alone[row].add(frame, own, 0)


@torch.no_grad()
def test_absent_objects_are_emptied_unless_the_released_behaviour_is_wanted() -> None:
    sam = random_video_sam(seed=1, score_shift=-50.0)
    levels = encode_image(sam, random_clip(1))
    bank = MemoryBank(sam)
    bank.prompt(0, see_masks(sam, levels, square_masks((4, 4))), 0)
    gone, kept = (see_next(sam, levels, [bank], 1, suppress) for suppress in (True, False))
    assert (gone.logits == -1024).all()
    assert (kept.logits > -1024).all()
    for seen in (gone, kept):
        torch.testing.assert_close(seen.pointers[0], sam.no_object_pointer[0])


@torch.no_grad()
def test_an_empty_prompt_says_that_the_object_is_not_there(sam: Any) -> None:
    levels = encode_image(sam, random_clip(1))
    masks = square_masks((4, 4), (4, 4))
    masks[1] = False
    seen = see_masks(sam, levels, masks)
    assert seen.object_scores.tolist() == [10, -10]
    assert (seen.logits[0] > 0).any()
    assert not (seen.logits[1] > 0).any()
    torch.testing.assert_close(seen.pointers[1], sam.no_object_pointer[0])


@torch.no_grad()
def test_embeddings_prompt_a_frame_with_the_mask_that_images_get(sam: Any) -> None:
    levels = encode_image(sam, random_clip(1))
    prompts = torch.randn(2, 128)
    seen, masks = see_prompts(sam, levels, prompts), decode_masks(sam, prompts, levels, torch.tensor([0, 0]))
    best = masks.ious.argmax(1)
    torch.testing.assert_close(seen.ious, masks.ious.amax(1))
    torch.testing.assert_close(seen.logits, masks.logits[torch.arange(2), best])


def test_every_part_of_the_memory_learns_from_the_frames_that_follow(sam: Any) -> None:
    clip = random_clip(3)
    bank = MemoryBank(sam, dtype=torch.float32)
    bank.prompt(0, see_masks(sam, encode_image(sam, clip[:1]), square_masks((4, 4))), 0)
    bank.add(1, see_next(sam, encode_image(sam, clip[1:2]), [bank], 1), 0)
    see_next(sam, encode_image(sam, clip[2:3]), [bank], 2).logits.square().mean().backward()
    without = {name for name, parameter in sam.named_parameters() if parameter.grad is None}
    sam.zero_grad()
    memory = ("memory_", "object_pointer_proj", "mask_downsample", "temporal_", "no_object_pointer")
    assert {name for name in without if name.startswith(memory)} <= {"no_object_pointer"}


def test_without_memory_or_prompt_one_line_says_so(sam: Any) -> None:
    with pytest.raises(ModelError, match="no memory"):
        MemoryBank(small_segmenter(("red",)).model.sam)
    prompted = MemoryBank(sam)
    prompted.prompt(0, some_seen(), 0)
    levels = encode_image(sam, random_clip(1))
    with pytest.raises(ModelError, match="object 1 was never prompted"):
        see_next(sam, levels, [prompted, MemoryBank(sam)], 1)
