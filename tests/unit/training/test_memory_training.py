"""The memory learns: it follows a moving square, and says when it is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_trackers import SIDE, random_video_sam, square_masks, tiny_tracker, video_config
from torch import Tensor
from transformers import Sam2VideoModel

from deixis.cli.main import run
from deixis.data.clip_formats import read_clips
from deixis.data.refer.clip_windows import Window, draw_window
from deixis.errors import ModelError, OptionError, TrainingError
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import freeze, load_sa2va, part_of, save_sa2va
from deixis.models.sa2va.memory.attention import see_masks, see_next
from deixis.models.sa2va.memory.bank import MemoryBank
from deixis.models.sa2va.memory.unroll import unroll
from deixis.models.sa2va.parts import MEMORY
from deixis.models.sa2va.sam import encode_image
from deixis.models.sa2va.small import small_segmenter, with_memory
from deixis.training.memory import memory_losses, train_memory


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
    masks = masks[:, :1]
    criterion = ReferCriterion(points=None, weight_dice=2.0)
    sam.vision_encoder.requires_grad_(False)
    with torch.no_grad():
        levels = encode_image(sam, pixels)
    trained = [parameter for parameter in sam.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
    totals, ious = [], []
    for _ in range(55):
        losses = memory_losses(sam, criterion, levels, masks)
        total = criterion.total(losses)
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        totals.append(total.item())
        ious.append(losses["iou"].item())
    assert min(totals[-10:]) < 0.45 * totals[0]
    assert ious[0] < 0.3
    assert max(ious[-10:]) > 0.5


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


def test_windows_show_every_object_in_a_prompted_frame() -> None:
    clips = read_clips("scenes:split=clip_train,count=5,seed=1")
    backwards = 0
    for position in range(12):
        window = draw_window(clips, SIDE, 4, 2, 3, np.random.default_rng([0, position]))
        again = draw_window(clips, SIDE, 4, 2, 3, np.random.default_rng([0, position]))
        assert np.array_equal(window.pixels, again.pixels)
        assert window.pixels.shape == (4, 3, SIDE, SIDE)
        assert window.masks.shape == (4, window.masks.shape[1], SIDE, SIDE)
        assert window.masks[0].any((1, 2)).all()
        assert window.prompt_frames[0] == 0
        backwards += len(window.prompt_frames) > 1
    assert backwards  # a second frame is given in some


def test_only_the_memory_changes(tmp_path: Path) -> None:
    save_sa2va(tiny_tracker(seed=1), tmp_path / "model")
    before = load_sa2va(tmp_path / "model").model.state_dict()
    command = ["refer", "memory", "--model", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--steps", "2"]
    scenes = "scenes:split=clip_train,count=5,seed=1"
    assert run([*command, "--data", scenes, "--frames", "3", "--batch-size", "1", "--device", "cpu"]) == 0
    after = load_sa2va(tmp_path / "out").model.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert "sam.memory_attention.layers.0.cross_attn_image.k_proj.weight" in changed
    assert {part_of(name) for name in changed} == {"memory"}
    with pytest.raises(OptionError, match="output"):
        run([*command, "--data", scenes])


def test_a_gradient_that_is_not_finite_is_skipped_and_hopeless_training_stops() -> None:
    bundle = tiny_tracker(seed=1)
    clips = read_clips("scenes:split=clip_train,count=2,seed=1")

    def draw(position: int) -> Window:
        return draw_window(clips, SIDE, 2, 1, 1, np.random.default_rng(position))

    with torch.no_grad():
        bundle.model.sam.memory_encoder.projection.bias[0] = float("nan")
    before = bundle.model.sam.memory_encoder.projection.weight.clone()
    with pytest.raises(TrainingError, match=r"5 gradients on end.*clip"):
        train_memory(bundle, draw, 10, 1e-3, 1)
    assert torch.equal(bundle.model.sam.memory_encoder.projection.weight, before)


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
