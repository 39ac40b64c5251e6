"""Prompts that point before they segment: the map, its loss, the mask prompt it becomes, and who trains it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_segmenters import TURNS, batch_of, tiny_segmenter
from small_trackers import random_clip, random_video_sam, tiny_tracker
from tiny_refer_runs import refer_arguments

from deixis.cli.main import run
from deixis.errors import ModelError
from deixis.losses.refer import ReferCriterion, pointing_ce
from deixis.models.sa2va import Sa2vaBundle, freeze, load_sa2va, save_sa2va
from deixis.models.sa2va.memory.attention import decode_next, see_masks, see_prompts
from deixis.models.sa2va.memory.bank import MemoryBank
from deixis.models.sa2va.pointing import as_mask_prompt, dense_prompt, point_logits, where_pointed
from deixis.models.sa2va.sam import decode_masks, encode_image
from deixis.models.sa2va.weights.released import save_released

TILES = (1, 1, 1)


def pointing_segmenter() -> Sa2vaBundle:
    bundle = tiny_segmenter()
    bundle.model.sam.config.points_first = True
    return bundle


@torch.no_grad()
def test_a_cell_is_compared_by_its_features_and_its_place() -> None:
    sam = tiny_segmenter().model.sam.double()
    prompts, coarse = torch.randn(3, 32, dtype=torch.double), torch.randn(3, 32, 4, 4, dtype=torch.double)
    places = sam.get_image_wide_positional_embeddings()[0]
    found = point_logits(sam, prompts, coarse)
    for index in range(3):
        for row in range(4):
            for column in range(4):
                cell = coarse[index, :, row, column] + places[:, row, column]
                expected = sum(float(a) * float(b) for a, b in zip(prompts[index], cell, strict=True)) / 32**0.5
                assert float(found[index, row, column]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@torch.no_grad()
def test_the_map_is_a_coarse_mask_whose_best_cell_counts_one() -> None:
    sam = tiny_segmenter().model.sam
    logits = torch.full((2, 4, 4), -50.0)
    logits[0, 1, 2], logits[1, 3, 0] = 3.0, 80.0
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, 0, 1, 2], mask[1, 0, 3, 0] = 1.0, 1.0
    size = sam.prompt_encoder.mask_input_size
    expected = sam.prompt_encoder.mask_embed(torch.nn.functional.interpolate(mask, size, mode="bilinear"))
    torch.testing.assert_close(as_mask_prompt(sam, logits), expected)
    torch.testing.assert_close(as_mask_prompt(sam, logits + 7.0), expected)


def test_the_loss_is_the_cross_entropy_to_the_areas_in_the_cells() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 4, generator=generator, dtype=torch.double, requires_grad=True)
    masks = torch.rand(3, 16, 16, generator=generator) > 0.7
    masks[1] = False
    found = pointing_ce(logits, masks)
    for index in (0, 2):
        total = sum(float(value.exp()) for value in logits[index].detach().flatten())
        expected = 0.0
        for row in range(4):
            for column in range(4):
                area = int(masks[index, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].sum())
                share = area / int(masks[index].sum())
                expected -= share * float((logits[index, row, column].detach().exp() / total).log())
        assert float(found[index].detach()) == pytest.approx(expected, rel=1e-6)
    assert float(found[1].detach()) == 0.0
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[1].any()


def test_absent_objects_and_no_objects_have_no_pointing_loss() -> None:
    outputs = {
        "pred_masks": torch.randn(2, 3, 8, 8),
        "pred_ious": torch.rand(2, 3),
        "object_scores": torch.randn(2),
        "label_logits": torch.randn(0, 5),
        "label_ids": torch.zeros(0, dtype=torch.long),
        "point_logits": torch.randn(2, 4, 4, requires_grad=True),
    }
    criterion = ReferCriterion(points=None)
    losses = criterion(outputs, torch.zeros(2, 8, 8, dtype=torch.bool))
    assert float(losses["loss_point"].detach()) == 0.0
    with_mask = criterion(outputs, torch.ones(2, 8, 8, dtype=torch.bool))
    without = {name: value for name, value in with_mask.items() if name != "loss_point"}
    gap = float((criterion.total(with_mask) - criterion.total(without)).detach())
    assert gap == pytest.approx(float(with_mask["loss_point"].detach()), rel=1e-5)
    none = {name: value[:0] for name, value in outputs.items()}
    assert float(criterion(none, torch.zeros(0, 8, 8, dtype=torch.bool))["loss_point"].detach()) == 0.0


def test_masks_follow_where_the_prompt_points() -> None:
    bundle, plain = pointing_segmenter(), tiny_segmenter()
    inputs = batch_of(bundle, TURNS, TILES)
    with torch.no_grad():
        pointed, blind = bundle.model(*inputs), plain.model(*inputs)
    assert pointed["point_logits"].shape == (4, 4, 4)
    assert "point_logits" not in blind
    assert float((pointed["pred_masks"] - blind["pred_masks"]).abs().max()) > 1e-3


def test_the_way_into_the_decoder_trains_with_it_and_only_where_prompts_point() -> None:
    for bundle in (pointing_segmenter(), tiny_segmenter()):
        points = bundle.model.sam.config.to_dict().get("points_first", False)
        freeze(bundle.model, ("mask_decoder", "text_hidden_fcs"), lora=False)
        outputs = bundle.model(*batch_of(bundle, TURNS, TILES))
        outputs["pred_masks"].square().mean().backward()
        way = list(bundle.model.sam.prompt_encoder.mask_embed.parameters())
        assert [p.requires_grad for p in way] == [points] * len(way)
        assert [p.grad is not None for p in way] == [points] * len(way)
    freeze(bundle.model, ("text_hidden_fcs",), lora=False)
    assert not any(p.requires_grad for p in bundle.model.sam.prompt_encoder.mask_embed.parameters())


@torch.no_grad()
def test_a_map_prompts_frames_as_it_prompts_images() -> None:
    sam = random_video_sam(seed=1, score_shift=1.0)
    sam.config.points_first = True
    levels = encode_image(sam, random_clip(1))
    prompts = torch.randn(2, 128)
    seen, masks = see_prompts(sam, levels, prompts), decode_masks(sam, prompts, levels, torch.tensor([0, 0]))
    torch.testing.assert_close(seen.logits, masks.logits[torch.arange(2), masks.ious.argmax(1)])
    apart = decode_masks(sam, prompts, levels, torch.tensor([0, 0]), objects_at_once=1)
    torch.testing.assert_close(apart.logits, masks.logits)


@torch.no_grad()
def test_a_memory_that_keeps_phrases_points_on_what_it_recalls() -> None:
    bundle = tiny_tracker(seed=1)
    sam = bundle.model.sam
    clip = torch.randn(2, 3, sam.prompt_encoder.input_image_size, sam.prompt_encoder.input_image_size)
    first, second = (encode_image(sam, frame[None]) for frame in clip)
    bank = MemoryBank(sam, dtype=torch.float32)
    meaning = torch.randn(sam.hidden_dim)
    side = sam.prompt_encoder.input_image_size
    masks = torch.arange(side).expand(1, side, side) < side // 2
    bank.prompt(0, see_masks(sam, first, masks, meaning[None]), 0, meaning)
    blind = decode_next(sam, second, [bank], 1).logits
    sam.config.points_first = True
    assert float((decode_next(sam, second, [bank], 1).logits - blind).abs().max()) > 1e-4
    bank.meanings.clear()  # without a phrase there is nothing to point with
    again = decode_next(sam, second, [bank], 1).logits
    sam.config.points_first = False
    torch.testing.assert_close(decode_next(sam, second, [bank], 1).logits, again)


@torch.no_grad()
def test_without_a_prompt_there_is_no_map() -> None:
    sam = pointing_segmenter().model.sam
    assert where_pointed(sam, None, torch.randn(2, 32, 4, 4)) is None
    assert dense_prompt(sam, None).shape == (1, 32, 1, 1)


def test_released_layouts_cannot_hold_it_and_folders_do(tmp_path: Path) -> None:
    bundle = tiny_tracker(seed=1)
    bundle.model.sam.config.points_first = True
    save_sa2va(bundle, tmp_path / "folder")
    assert load_sa2va(tmp_path / "folder").model.sam.config.points_first
    with pytest.raises(ModelError, match="point"):
        save_released(bundle, tmp_path / "released")
    assert not (tmp_path / "released").exists()


def test_a_run_teaches_a_segmenter_to_point(tmp_path: Path) -> None:
    model = tmp_path / "model"
    bundle = tiny_segmenter()
    bundle.model.sam.config.points_first = True
    save_sa2va(bundle, model)
    assert run(refer_arguments(model, tmp_path, "--epochs", "2", "--no-report", "--learning-rate", "1e-3")) == 0
    lines = [json.loads(line) for line in (tmp_path / "segmenter/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss_point"] for line in lines if line["kind"] == "step"]
    assert len(losses) == 8
    teacher = tmp_path / "segmenter/teachers/sa2va"
    assert json.loads((teacher / "sam/config.json").read_text())["points_first"]
    name = "prompt_encoder.mask_embed.conv1.weight"
    before, after = (load_file(folder / "sam/model.safetensors")[name] for folder in (model, teacher))
    assert not torch.equal(before, after)
