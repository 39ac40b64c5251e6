"""scripts/build_builtin: both recipes start and learn, and the memory of the built-in segmenter learns by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_trackers import SIDE, square_masks, tiny_tracker, video_config
from tiny_runs import run_program
from transformers import Sam2VideoModel

from deixis.data.clip_formats import read_clips
from deixis.inference.refer.tracker import Tracker
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import freeze, load_sa2va, part_of
from deixis.models.sa2va.memory.attention import recall, see_masks
from deixis.models.sa2va.memory.bank import MemoryBank, keeps_phrases
from deixis.models.sa2va.sam import encode_image

SCRIPTS = Path(__file__).parents[2] / "scripts"
CLIPS = "scenes:split=clip_train,count=5,seed=1"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def pointing_tracker(score_shift=4.0):
    bundle = tiny_tracker(seed=1)
    bundle.model.sam.config.keeps_phrases = bundle.model.sam.config.points_first = True
    with torch.no_grad():
        bundle.model.sam.mask_decoder.pred_obj_score_head.proj_out.bias += score_shift
    return bundle, Tracker(bundle, max_tiles=1).prompter


def test_every_part_of_the_memory_learns_from_masks_and_from_where_phrases_point():
    from builtin_memory import window_losses

    bundle, prompter = pointing_tracker()
    freeze(bundle.model, ("memory",), lora=False)
    clips = read_clips(CLIPS)
    for names in (("loss_mask", "loss_object"), ("loss_point",)):
        losses = window_losses(prompter, ReferCriterion(points=None), clips[0], np.random.default_rng(3))
        bundle.model.zero_grad()
        sum(losses[name] for name in names).backward()
        reached = {
            name.split(".")[1] for name, p in bundle.model.named_parameters() if p.grad is not None and p.grad.any()
        }
        assert {"memory_attention", "memory_encoder", "object_pointer_proj"} <= reached
        assert all(part_of(name) == "memory" for name, p in bundle.model.named_parameters() if p.grad is not None)


def test_phrases_that_are_found_nowhere_teach_nothing():
    from builtin_memory import window_losses

    _, prompter = pointing_tracker(score_shift=-50.0)
    assert window_losses(prompter, ReferCriterion(points=None), read_clips(CLIPS)[0], np.random.default_rng(3)) == {}


def test_only_the_memory_changes():
    from builtin_memory import train_memory

    bundle, _ = pointing_tracker()
    before = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}
    train_memory(bundle, CLIPS, 2)
    changed = {name for name, tensor in bundle.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "sam.memory_attention.layers.0.cross_attn_image.k_proj.weight" in changed
    assert {part_of(name) for name in changed} == {"memory"}
    assert keeps_phrases(bundle.model.sam)


def heard(fresh):
    """How far apart what two objects' memories say is, against the spread of a frame's features."""
    from build_builtin import draw_weights

    torch.manual_seed(0)
    sam = Sam2VideoModel(video_config()).eval()
    if fresh:
        draw_weights(sam)
    frames = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        levels = [encode_image(sam, frame[None]) for frame in frames]
        seen = see_masks(sam, levels[0], square_masks((4, 4), (40, 40)))
        banks = [MemoryBank(sam) for _ in range(2)]
        for row, bank in enumerate(banks):
            bank.prompt(0, seen, row)
        found = recall(sam, levels[1][2], banks, 1)
    return float((found[0] - found[1]).std() / found.std())


def test_a_drawn_memory_says_of_two_objects_two_things():
    assert heard(fresh=False) < 0.005  # as transformers draws it
    assert heard(fresh=True) > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("model", ["detector", "segmenter"])
def test_a_shortened_build_ends_in_a_folder_that_loads(model, tmp_path):
    out = run_program(SCRIPTS / "build_builtin.py", model, "--steps", "2", "--output", tmp_path / "out")
    folder = Path(out.rsplit("wrote ", 1)[1].strip())
    assert (folder / "config.json").is_file()
    # the figures that a whole build records
    assert {"AP50"} <= set(out.split()) if model == "detector" else "## Clips" in out
    if model == "segmenter":
        assert keeps_phrases(load_sa2va(folder).model.sam)
