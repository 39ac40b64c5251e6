"""A segmenter divided among processes: as one process, checkpoints that another number reads, ordinary folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_refer_two_processes import SCRIPT
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import records
from tiny_runs import run_program as run

from deixis.errors import TrainingError
from deixis.training.checkpoint import Identity, Progress, digests_of, read_progress, save_progress, write_state

CUT = Path(__file__).with_name("cut_refer_run.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


def test_one_process_is_told_to_be_several(deixis, model: Path, tmp_path: Path) -> None:
    code, _, err = deixis(refer_arguments(model, tmp_path, "--shard-model", "--no-report", "--no-baseline"))
    assert code == 2
    assert "--shard-model divides the model among processes; start several" in err
    code, _, err = deixis(refer_arguments(model, tmp_path, "--shard-model", "--cache-features", str(tmp_path / "c")))
    assert code == 2
    assert "exclude each other" in err


@pytest.mark.slow
def test_loss_and_gradient_in_four_processes_are_those_of_one(model: Path, tmp_path: Path) -> None:
    (tmp_path / "four").mkdir()
    run(SCRIPT, model, tmp_path, "8x1")
    run(SCRIPT, model, tmp_path / "four", "2x1f", processes=4)
    one, four = (torch.load(tmp_path / name, weights_only=True) for name in ("8x1.pt", "four/2x1f.pt"))
    for name, figure in one["figures"].items():
        assert four["figures"][name] == pytest.approx(figure, rel=1e-5), name
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(four["gradients"][name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_run_saved_by_four_processes_resumes_in_two_and_ends_as_one_that_was_not_divided(
    deixis, model: Path, tmp_path: Path
) -> None:
    common = ("--epochs", "2", "--no-report", "--no-baseline", "--save-interval", "1", "--lora-dropout", "0")
    common = (*common, "--val-loss-images", "0", "--ema-decay", "0.5")
    whole = refer_arguments(model, tmp_path, *common, "--batch-size", "4", "--experiment-name", "whole")
    code, _, err = deixis(whole)
    assert code == 0, err

    parts = refer_arguments(
        model, tmp_path, *common, "--batch-size", "1", "--experiment-name", "parts", "--shard-model"
    )
    run(CUT, *parts, processes=4, code=1)
    shards = sorted((tmp_path / "parts/checkpoints/last/shards").iterdir())
    assert len(shards) == 4
    assert not any(path.suffix in (".pt", ".distcp") for path in tmp_path.rglob("parts/**/*")), "nothing is a pickle"
    weights = [load_file(shard) for shard in shards]
    rows = {
        name: [len(one[name]) for one in weights if name in one] for name in weights[0] if name.startswith("model/")
    }
    assert any(len(found) == 4 and max(found) < sum(found) for found in rows.values())

    run("-m", "deixis", *parts, "--resume", processes=2, code=1)  # half the samples in a step
    run("-m", "deixis", *parts, "--gradient-accumulation-steps", "2", "--resume", processes=2)
    assert [record["step"] for record in records(tmp_path / "parts", "step")] == list(range(4))
    for path in sorted((tmp_path / "whole/teachers/sa2va").rglob("*.safetensors")):
        mine, theirs = load_file(path), load_file(tmp_path / "parts" / path.relative_to(tmp_path / "whole"))
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(
                theirs[name], tensor, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
            )


def test_a_damaged_shard_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    last = tmp_path / "last"
    (last / "shards").mkdir(parents=True)
    shard = last / "shards/shard-00001-model-00001-of-00001.safetensors"
    shard.write_bytes(b"weights")
    identity = Identity({"epochs": 1})
    write_state(last, Progress(step=3), identity, digests=digests_of(last))
    save_progress(last, Progress(step=4), identity)
    assert read_progress(last, identity).step == 4
    shard.unlink()
    shard.write_bytes(b"weighty")
    with pytest.raises(TrainingError, match=rf"{shard.name}: damaged"):
        read_progress(last, identity)
