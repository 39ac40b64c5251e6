"""Every benchmark still starts, and some run at their smallest size. What they measure is not looked at."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DATA = Path(os.environ.get("DEIXIS_SHARED_DATA", BENCHMARKS.parents[1] / "shared" / "data"))
RUNS = {
    "bench_criterion": "--repeats 2 --cases 1",
    "bench_deformable_attention": "--rounds 1",
    "bench_learning": "--runs {folder}/runs.jsonl --methods prompt --pictures 2 --seeds 0 --steps 1 --most 2",
    "bench_data_path": "--size 64 96 --images 2 --rounds 1",
    "bench_real_data": "raccoon --epochs 1 --images 4",
    "bench_streaming": "--most 50",
    "bench_shards": "--most 50",
    "bench_plan": "--shapes 0",
    "bench_slices": "--size 128 160 --slice 96",
    "bench_vocabulary": "--part chunking --images 1",
    "scenes_segmenter": "--images 1",
}
ON_PHOTOGRAPHS = ("bench_data_path", "bench_real_data")
PARTS = {"format_peers", "harness", "learning_grounds", "real_examples", "real_steps"}
"""Modules that benchmarks share."""


STARTS = sorted(file.stem for file in BENCHMARKS.glob("*.py") if file.stem not in PARTS)


def start(name: str, arguments: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    patch.setattr(sys, "argv", [f"{name}.py", *arguments.split()])
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")


@pytest.mark.parametrize("name", STARTS)
def test_it_starts(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All that it imports is there; what it is for is told."""
    with pytest.raises(SystemExit) as ended:
        start(name, "--help", monkeypatch)
    assert ended.value.code == 0
    assert f"benchmarks/{name}.py" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_it_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in ON_PHOTOGRAPHS and not DATA.is_dir():
        pytest.skip(f"{DATA}: no photographs there; DEIXIS_SHARED_DATA names their folder")
    before = set((BENCHMARKS / "results").iterdir())
    start(name, RUNS[name].format(folder=tmp_path), monkeypatch)
    assert capsys.readouterr().out.count("\n") > 1
    assert set((BENCHMARKS / "results").iterdir()) == before  # nothing is written unless asked
