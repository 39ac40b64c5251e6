"""Our memory steps against transformers' `Sam2VideoModel` and its session, frame by frame on random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_trackers import random_clip, random_video_sam, square_masks
from torch import Tensor
from transformers import Sam2VideoInferenceSession

from deixis.models.sa2va.memory.attention import see_masks, see_next
from deixis.models.sa2va.memory.bank import MemoryBank
from deixis.models.sa2va.sam import encode_image

FRAMES = 24  # more than the 7 memories and the 16 pointers that are attended to
SAM_20 = {
    "enable_temporal_pos_encoding_for_object_pointers": False,
    "enable_occlusion_spatial_embedding": False,
}
Prompts = dict[int, Tensor]


def as_meta_points(sam: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pointer of a given mask is the single mask's in Meta's code and here; transformers takes the best of three
    (tests/parity/authors/test_sam2.py)."""
    whole = sam._single_frame_forward

    def single(*args: Any, input_masks: Tensor | None = None, **options: Any) -> Any:
        given = {} if input_masks is None else {"input_masks": input_masks, "multimask_output": False}
        return whole(*args, **{**options, **given})

    monkeypatch.setattr(sam, "_single_frame_forward", single)


@torch.no_grad()
def theirs(sam: Any, clip: Tensor, prompts: Prompts, streaming: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Masks and object scores of every frame; streaming, a prompt is not known before its frame."""
    session = Sam2VideoInferenceSession(video=None if streaming else clip, dtype=torch.float32)

    def prompt(frame: int) -> None:
        for index, mask in enumerate(prompts[frame]):
            session.add_mask_inputs(session.obj_id_to_idx(index + 1), frame, mask[None, None].float())
            session.obj_with_new_inputs.append(index + 1)

    outputs = []
    if streaming:
        for frame, pixels in enumerate(clip):
            if frame in prompts:
                prompt(frame)
            outputs.append(sam(session, frame=pixels))
    else:
        for frame in prompts:
            prompt(frame)
            sam(session, frame_idx=frame)
        outputs = list(sam.propagate_in_video_iterator(session, start_frame_idx=0))
    return [out.pred_masks[:, 0] for out in outputs], [out.object_score_logits.flatten() for out in outputs]


@torch.no_grad()
def ours(
    sam: Any, clip: Tensor, prompts: Prompts, streaming: bool, suppress: bool = True
) -> tuple[list[Tensor], list[Tensor]]:
    banks = [MemoryBank(sam) for _ in next(iter(prompts.values()))]
    given = {}
    for frame, masks in prompts.items():
        given[frame] = see_masks(sam, encode_image(sam, clip[frame : frame + 1]), masks)
        for row, bank in enumerate(banks):
            if not streaming:
                bank.prompt(frame, given[frame], row)
    logits, scores = [], []
    for frame in range(len(clip)):
        if frame in given:
            seen = given[frame]
        else:
            seen = see_next(sam, encode_image(sam, clip[frame : frame + 1]), banks, frame, suppress)
        for row, bank in enumerate(banks):
            if frame not in given:
                bank.add(frame, seen, row)
            elif streaming:
                bank.prompt(frame, seen, row)
        logits.append(seen.logits)
        scores.append(seen.object_scores)
    return logits, scores


@pytest.mark.parametrize(
    ("form", "streaming", "shift"),
    [
        ({}, True, -1.1),  # object scores on both sides of 0
        (SAM_20, False, 1.0),
        ({"multimask_output_for_tracking": False, "num_maskmem": 3}, False, 1.0),
    ],
)
def test_every_frame_is_what_transformers_makes_of_it(
    form: dict[str, Any], streaming: bool, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = random_video_sam(seed=1, score_shift=shift, **form)
    as_meta_points(sam, monkeypatch)
    clip = random_clip(FRAMES)
    prompts = {0: square_masks((4, 4), (30, 36)), 10: square_masks((20, 8), (0, 0), size=16)}
    wanted, wanted_scores = theirs(sam, clip, prompts, streaming)
    found, found_scores = ours(sam, clip, prompts, streaming)
    for frame in range(FRAMES):
        torch.testing.assert_close(found[frame], wanted[frame], rtol=1e-3, atol=2e-3)
        torch.testing.assert_close(found_scores[frame], wanted_scores[frame], rtol=1e-3, atol=2e-3)
    tracked = torch.stack([scores for frame, scores in enumerate(wanted_scores) if frame not in prompts])
    assert (tracked > 0).any()
    assert shift > 0 or (tracked < 0).any()


def test_unlike_transformers_a_prompt_on_one_object_leaves_the_others_memory_soft(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sam = random_video_sam(seed=1, score_shift=1.0)
    as_meta_points(sam, monkeypatch)
    clip = random_clip(3)
    session = Sam2VideoInferenceSession(dtype=torch.float32)
    masks = square_masks((4, 4), (30, 36))
    for frame, pixels in enumerate(clip):
        for index in (0, 1) if frame == 0 else (0,) if frame == 1 else ():
            session.add_mask_inputs(session.obj_id_to_idx(index + 1), frame, masks[index][None, None].float())
            session.obj_with_new_inputs.append(index + 1)
        sam(session, frame=pixels)
    hard = session.output_dict_per_obj[1]["non_cond_frame_outputs"][1]["maskmem_features"][:, 0].float()
    with torch.no_grad():
        levels = [encode_image(sam, pixels[None]) for pixels in clip]
        bank = MemoryBank(sam)
        bank.prompt(0, see_masks(sam, levels[0], masks[1:]), 0)
        soft = see_next(sam, levels[1], [bank], 1)
    other = session.output_dict_per_obj[1]["non_cond_frame_outputs"][1]["pred_masks"][:, 0]
    torch.testing.assert_close(soft.logits, other, rtol=1e-3, atol=2e-3)  # the same mask,
    assert (soft.spatial[0] - hard).abs().max() > 0.1  # remembered by its probabilities and not cut at 0
