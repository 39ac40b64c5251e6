"""A memory that keeps what phrases mean: how it starts, what it learns from, what following makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from small_trackers import SIDE, random_video_sam, square_masks, tiny_tracker, video_config
from transformers import Sam2VideoModel

from deixis.cli.main import run
from deixis.data.clip_formats import read_clips
from deixis.data.refer.clip_phrase_windows import PhraseWindow, draw_phrase_window
from deixis.errors import DataError, OptionError
from deixis.inference.refer.tracker import Tracker
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import Sa2vaBundle, freeze, load_sa2va, part_of, save_sa2va
from deixis.models.sa2va.memory.attention import recall, see_masks, see_next
from deixis.models.sa2va.memory.bank import MemoryBank, keeps_phrases
from deixis.models.sa2va.memory.start import start_memory
from deixis.models.sa2va.memory.unroll import Given, unroll_phrases
from deixis.models.sa2va.sam import decode_masks, encode_image
from deixis.recipes.refer.memory_answers import Answers
from deixis.training.memory_phrases import phrase_losses

SCENES = "scenes:split=clip_train,count=5,seed=1"
PHRASES = ["red circle", "the blue square"]


def keeping(seed: int = 1, score_shift: float = 4.0) -> Sa2vaBundle:
    bundle = tiny_tracker(seed=seed)
    bundle.model.sam.config.keeps_phrases = True
    with torch.no_grad():
        bundle.model.sam.mask_decoder.pred_obj_score_head.proj_out.bias += score_shift
    return bundle


def heard(fresh: bool) -> float:
    """How far apart what two objects' memories say is, against the spread of a frame's features."""
    torch.manual_seed(0)
    sam = Sam2VideoModel(video_config()).eval()
    if fresh:
        start_memory(sam)
    frames = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        levels = [encode_image(sam, frame[None]) for frame in frames]
        seen = see_masks(sam, levels[0], square_masks((4, 4), (40, 40)))
        banks = [MemoryBank(sam) for _ in range(2)]
        for row, bank in enumerate(banks):
            bank.prompt(0, seen, row)
        found = recall(sam, levels[1][2], banks, 1)
    return float((found[0] - found[1]).std() / found.std())


def test_a_started_memory_says_of_two_objects_two_things() -> None:
    assert heard(fresh=False) < 0.005  # as transformers draws it
    assert heard(fresh=True) > 0.02


def window_of(position: int) -> PhraseWindow:
    return draw_phrase_window(read_clips(SCENES), SIDE, 4, 3, 3, 5, np.random.default_rng(position))


def test_windows_are_a_run_and_frames_from_all_over_the_clip() -> None:
    lengths = set()
    for position in range(8):
        window, again = window_of(position), window_of(position)
        assert window.texts == again.texts
        assert np.array_equal(window.masks, again.masks)
        split = len(window.asked)
        lengths.add(split)
        assert set(window.asked) <= {0, 6, 12, 17, 23}
        assert len(window.run) == 4
        assert len(set(np.diff(window.run).tolist())) == 1
        assert window.numbers[split:] == (0, 1, 2, 3)
        assert len(window.pixels) == split + 4
        assert window.squares(SIDE).shape == (split + 4, 3, SIDE, SIDE)
        for shown, label in zip(window.numbers, window.asked, strict=False):
            if label in window.run:
                assert shown == window.run.index(label)
    assert len(lengths) > 1


def test_the_memory_is_followed_as_it_was_trained() -> None:
    sam = random_video_sam(seed=1)
    torch.manual_seed(1)
    pixels, masks, meanings = torch.randn(3, 3, SIDE, SIDE), square_masks((4, 4), (40, 40)), torch.randn(2, 128)
    empty = torch.zeros_like(masks)
    with torch.no_grad():
        frames = [encode_image(sam, frame[None]) for frame in pixels]
        given = {0: Given(frames[0], masks, meanings), 2: Given(frames[2], empty, -meanings)}
        found = unroll_phrases(sam, given, dict(enumerate(frames)))
        banks = [MemoryBank(sam, 2, torch.float32) for _ in range(2)]
        for number, (levels, shown, meant) in given.items():
            seen = see_masks(sam, levels, shown, meant)
            for row, bank in enumerate(banks):
                bank.prompt(number, seen, row, 0.0 * meant[row])  # the mean of both
        for number, levels in enumerate(frames):
            seen = see_next(sam, levels, banks, number)
            rows = found.frame == number
            torch.testing.assert_close(found.object_scores[rows], seen.object_scores, rtol=1e-4, atol=1e-4)
            for row, bank in enumerate(banks):
                bank.add(number, seen, row)
    assert found.frame.tolist() == [0, 0, 1, 1, 2, 2]


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


def test_every_part_of_the_memory_learns_from_what_the_segmenter_says() -> None:
    bundle = keeping()
    freeze(bundle.model, ("memory",), lora=False)
    asked = Answers(bundle, torch.device("cpu")).asked(window_of, np.random.default_rng(3))
    assert asked.masks.flatten(2).any(2).any(0).all()
    losses = phrase_losses(bundle, ReferCriterion(points=None, supervised="all"), asked)
    torch.autograd.backward(losses["loss_mask"] + losses["loss_object"])
    reached = {name.split(".")[1] for name, p in bundle.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"memory_attention", "memory_encoder", "object_pointer_proj"} <= reached


def test_where_phrases_point_is_learnt_with_the_memory() -> None:
    """By itself, on features that have attended to the memory: it teaches every part of it but what makes masks."""
    bundle = keeping()
    bundle.model.sam.config.points_first = True
    freeze(bundle.model, ("memory",), lora=False)
    asked = Answers(bundle, torch.device("cpu")).asked(window_of, np.random.default_rng(3))
    criterion = ReferCriterion(points=None, supervised="all", weight_point=3.0)
    losses = phrase_losses(bundle, criterion, asked)
    without = {name: loss for name, loss in losses.items() if name != "loss_point"}
    gap = (criterion.total(losses) - criterion.total(without)).detach()
    assert float(gap) == pytest.approx(3.0 * float(losses["loss_point"].detach()), rel=1e-4)
    losses["loss_point"].backward()
    reached = {name.split(".")[1] for name, p in bundle.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"memory_attention", "memory_encoder", "object_pointer_proj"} <= reached
    assert all(part_of(name) == "memory" for name, p in bundle.model.named_parameters() if p.grad is not None)
    bundle.model.sam.config.points_first = False
    assert "loss_point" not in phrase_losses(bundle, criterion, asked)


@torch.no_grad()
def test_the_points_of_a_followed_frame_are_the_phrase_against_what_it_recalls() -> None:
    sam = random_video_sam(seed=1)
    sam.config.points_first = True
    torch.manual_seed(1)
    pixels, masks, meanings = torch.randn(3, 3, SIDE, SIDE), square_masks((4, 4), (40, 40)), torch.randn(2, 128)
    levels = [encode_image(sam, frame[None]) for frame in pixels]
    found = unroll_phrases(sam, {0: Given(levels[0], masks, meanings)}, {1: levels[1], 2: levels[2]})
    assert found.point_logits is not None
    assert found.point_logits.shape[0] == len(found.frame) == 4
    seen = see_masks(sam, levels[0], masks, meanings)
    banks = [MemoryBank(sam, 1, torch.float32) for _ in range(2)]
    for row, bank in enumerate(banks):
        bank.prompt(0, seen, row, meanings[row])
    cells = recall(sam, levels[1][2], banks, 1) + sam.get_image_wide_positional_embeddings()
    expected = torch.einsum("oc,ochw->ohw", meanings, cells) / 128**0.5
    torch.testing.assert_close(found.point_logits[:2], expected, atol=1e-4, rtol=1e-4)


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


def test_the_command_writes_a_memory_that_keeps_phrases(tmp_path: Path) -> None:
    save_sa2va(tiny_tracker(seed=1), tmp_path / "model")
    command = ["refer", "memory", "--model", str(tmp_path / "model"), "--data", SCENES, "--steps", "1", "--frames", "2"]
    command += ["--batch-size", "1", "--device", "cpu", "--fresh"]
    assert run([*command, "--output", str(tmp_path / "with")]) == 0
    assert run([*command, "--output", str(tmp_path / "without"), "--given", "masks"]) == 0
    kept, plain = load_sa2va(tmp_path / "with"), load_sa2va(tmp_path / "without")
    assert keeps_phrases(kept.model.sam)
    assert not keeps_phrases(plain.model.sam)
    before, after = load_sa2va(tmp_path / "model").model.state_dict(), kept.model.state_dict()
    assert {part_of(name) for name in after if not torch.equal(after[name], before[name])} == {"memory"}


def test_what_cannot_keep_phrases_is_told(tmp_path: Path) -> None:
    save_sa2va(tiny_tracker(seed=1, behaviour="sa2va"), tmp_path / "released")
    command = ["refer", "memory", "--model", str(tmp_path / "released"), "--data", SCENES, "--given", "phrases"]
    with pytest.raises(OptionError, match="given masks"):
        run([*command, "--output", str(tmp_path / "out"), "--device", "cpu"])

    class Silent:
        name = "silent"

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> object:
            clip = read_clips(SCENES)[index]
            return clip.evolve(expressions=())

    with pytest.raises(DataError, match="sentence"):
        draw_phrase_window(Silent(), SIDE, 4, 3, 3, 5, np.random.default_rng(0))  # type: ignore[arg-type]
