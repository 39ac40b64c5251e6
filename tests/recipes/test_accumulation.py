"""Accumulated batches are the larger batch: the same samples a step, the same losses, the same weights."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file
from tiny_runs import EVERYTHING, records, train_arguments, write_coco, write_tiny_model

pytestmark = pytest.mark.slow

WAYS = {"joined": (4, 1), "halves": (2, 2), "quarters": (1, 4)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two epochs of eleven images of one size, so that none is padded, mirrored at random; four images a step."""
    from deixis.cli.main import main

    folder = tmp_path_factory.mktemp("accumulation")
    model = write_tiny_model(folder / "model", dropout=0.0)
    labels = write_coco(folder / "data", count=11)
    for name, (batch_size, accumulation) in WAYS.items():
        more = ("--data", labels, "--epochs", "2", "--batch-size", batch_size, "--experiment-name", name)
        more += ("--gradient-accumulation-steps", accumulation, "--augment", "flips")
        more += (*EVERYTHING, "--denoising-queries", "3")
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in train_arguments(model, folder, *map(str, more))])
        assert stopped.value.code == 0
    return folder


@pytest.mark.parametrize("way", ["halves", "quarters"])
def test_losses_of_every_step_are_those_of_the_larger_batch(runs, way):
    joined, accumulated = (records(runs / name, "step") for name in ("joined", way))
    assert [record["step"] for record in joined] == [record["step"] for record in accumulated] == list(range(6))
    for one, other in zip(joined, accumulated, strict=True):
        for name in one.keys() & {"loss", "loss_ce", "loss_bbox_0", "loss_giou_enc", "loss_ce_dn", "grad_norm"}:
            assert other[name] == pytest.approx(one[name], rel=2e-4), (one["step"], name)


@pytest.mark.parametrize("way", ["halves", "quarters"])
def test_the_weights_are_those_of_the_larger_batch(runs, way):
    joined, accumulated = (load_file(runs / name / "checkpoints/last/model.safetensors") for name in ("joined", way))
    start = load_file(runs / "model/model.safetensors")
    moved = max(float((joined[name] - start[name]).abs().max()) for name in joined if name in start)
    apart = [float((joined[name] - accumulated[name]).abs().max()) for name in joined]
    assert moved > 1e-4
    assert sum(difference > 0.02 * moved for difference in apart) <= len(apart) // 50  # AdamW of rounding errors
