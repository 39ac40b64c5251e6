"""A run on shards of which one process is killed: torchrun starts it again, and it ends as if nothing had been."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import EVERYTHING, VAL_SCENES, environment, finish, records, run_program

from deixis.data.formats import read_dataset
from deixis.data.formats.shards.write import write_shards

STEPS = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shards"
    write_shards(read_dataset("scenes:split=demo_train,count=16,seed=1"), folder, "webdataset", 0.05)
    return folder


def command(processes: int, model: Path, data: Path, output: Path, *more: str) -> list[str]:
    words = ["detect", "train", "--data", str(data), "--val-data", VAL_SCENES, "--model", str(model), *EVERYTHING]
    words += ["--output", str(output), "--batch-size", str(4 // processes), "--epochs", "2", "--save-interval", "1"]
    return ["-m", "deixis", *words, "--gpus", "0", *more]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2])  # 1 and 4 by hand: each takes a minute
def test_a_killed_process_costs_no_step(tiny_model: Path, shards: Path, tmp_path: Path, processes: int) -> None:
    whole = command(processes, tiny_model, shards, tmp_path / "whole", "--num-workers", "0")
    run_program(*whole, processes=processes)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--max-restarts=1"]
    killed = command(processes, tiny_model, shards, tmp_path / "killed", "--num-workers", "1")
    process = psutil.Popen([sys.executable, *launch, *killed], env=environment(), stdout=-1, stderr=-1, text=True)
    log = tmp_path / "killed/metrics.jsonl"
    deadline = time.monotonic() + 1200
    while not log.exists() or log.read_text().count('"kind": "step"') < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.children()[-1].kill()
    out, _ = finish(process)
    assert "resuming" in out
    assert [record["step"] for record in records(tmp_path / "killed", "step")] == list(range(STEPS))
    for name in ("checkpoints/last", "teachers/grounding_dino"):
        mine, theirs = (load_file(tmp_path / run / name / "model.safetensors") for run in ("whole", "killed"))
        assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []
    steps = [json.loads(line) for line in log.read_text().splitlines() if '"kind": "step"' in line]
    assert all(0 <= step["data_wait_share"] <= 1 for step in steps)
    assert all(("data_wait_most" in step) == (processes > 1) for step in steps)
    assert "device hours" in out
    assert "waiting for data: " in out
