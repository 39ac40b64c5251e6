"""Every benchmark still runs: the smallest size, one round. What it measures is not looked at."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DATA = Path(os.environ.get("DEIXIS_SHARED_DATA", BENCHMARKS.parents[1] / "shared" / "data"))
QUICK = ("bench_criterion", "bench_deformable_attention", "bench_streaming")
RUNS = {
    "bench_criterion": "--repeats 1",
    "bench_data_path": "--images 2 --rounds 1 --size 100 160",
    "bench_deformable_attention": "--rounds 1",
    "bench_detector": "--only step --rounds 1 --size 64 96",
    "bench_forgetting": "demo --epochs 1 --images 8",
    "bench_parts": "--rounds 1",
    "bench_real_data": "raccoon --epochs 1 --images 8",
    "bench_recipe": "raccoon --variants today --seeds 1 --epochs 1 --images 8",
    "bench_scaling": "--values 1 --rounds 1",
    "bench_segmenter": "--only step --rounds 1",
    "bench_streaming": "--most 50",
    "bench_track": "--most 30",
    "bench_vocabulary": "--part time --images 2 --rounds 1",
    "clips_segmenter": "--clips 1",
    "loop_segmenter": "--images 2",
    "real_loop": "fruits --max-steps 1 --epochs 1",
    "real_segmenter": "fruits --max-steps 1",
    "scenes_segmenter": "--images 2",
}
ON_PHOTOGRAPHS = ("bench_data_path", "bench_real_data", "bench_recipe", "real_loop", "real_segmenter")
PARTS = {"harness", "real_examples", "real_steps"}
"""Modules that benchmarks share."""


def test_each_has_a_run() -> None:
    assert {file.stem for file in BENCHMARKS.glob("*.py")} == RUNS.keys() | PARTS


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_it_runs(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if name in ON_PHOTOGRAPHS and not DATA.is_dir():
        pytest.skip(f"{DATA}: no photographs there; DEIXIS_SHARED_DATA names their folder")
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *RUNS[name].split()])
    before = set((BENCHMARKS / "results").iterdir())
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.count("\n") > 1
    assert set((BENCHMARKS / "results").iterdir()) == before  # nothing is written unless asked
