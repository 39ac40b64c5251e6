"""Every benchmark runs at its smallest size. What it measures is not looked at."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import warm_processes
from tiny_runs import environment

from deixis.cli.main import main

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DATA = Path(os.environ.get("DEIXIS_SHARED_DATA", BENCHMARKS.parents[1] / "shared" / "data"))
RUNS = {
    "bench_corrections": "--runs {folder}/runs.jsonl --pictures 2 --steps 1 --most 1",
    "bench_criterion": "--repeats 2 --cases 1",
    "bench_data_path": "--size 64 96 --images 2 --rounds 1",
    "bench_deformable_attention": "--rounds 1",
    "bench_detector": "--small --size 64 64 --rounds 1",
    "bench_forgetting": "demo --epochs 1 --images 4 --most 1",
    "bench_learning": "--runs {folder}/runs.jsonl --methods prompt --pictures 2 --seeds 0 --steps 1 --most 2",
    "bench_loop": "--runs {folder}/runs.jsonl --orders worth --rounds 1 --per-round 1 --pictures 2 --steps 1 --most 1",
    "bench_parts": "--small --size 64 64 --rounds 1",
    "bench_plan": "--shapes 0",
    "bench_ray": "--pictures 10 --rounds 1",
    "bench_real_data": "raccoon --epochs 1 --images 4 --photographs 8",
    "bench_recipe": "raccoon --variants today --seeds 1 --images 4 --epochs 1 --short-px 64 --most 1",
    "bench_scaling": "--values 1 --rounds 1 --batch 1 --side 64",
    "bench_segmenter": "--sam-px 64 --tile-px 56 --width 64 --vocabulary 2048 --rounds 1",
    "bench_serve": "--seconds 0.5 --rounds 1 --round-seconds 0.2",
    "bench_shard_model": "--width 64",
    "bench_shards": "--most 50",
    "bench_sinks": "--images 1 --steps 1 --seeds 1",
    "bench_slices": "--size 128 160 --slice 96",
    "bench_streaming": "--most 50",
    "bench_track": "--most 28",
    "bench_vocabulary": "--part chunking --images 1",
    "chat_forgetting": "--steps 1 --images 1 --folder {folder}/runs",
    "clips_segmenter": "--clips 1 --frames 4",
    "compare_formats": "--scenes 2",
    "loop_segmenter": "--images 1",
    "ray_kills": "--kills 1 --longest-wait-s 0",
    "real_loop": "demo --model {segmenter} --pictures 1",
    "real_segmenter": "coco --epochs 1 --max-steps 1 --images 1",
    "scenes_segmenter": "--images 1",
}
ON_PHOTOGRAPHS = ("bench_data_path", "bench_real_data", "bench_recipe", "real_loop", "real_segmenter")
WITH_RAY = ("bench_ray", "ray_kills")
PARTS = {"format_peers", "harness", "learning_grounds", "real_examples", "real_steps"}
"""Modules that benchmarks share; `format_peers` runs under other packages' interpreters."""


def start(name: str, arguments: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    patch.setattr(sys, "argv", [f"{name}.py", *arguments.split()])
    patch.setattr(warnings, "formatwarning", warnings.formatwarning)  # which the command replaces
    patch.setattr(torch, "set_num_threads", lambda count: None)  # they would stay for all tests that follow
    patch.setattr(subprocess, "run", run_here)
    patch.setattr(subprocess, "Popen", Started)
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")


def run_here(command: Sequence[Any], **how: Any) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run`; Python's programs run in this process or are forked, as importing takes longer than they do."""
    words = [str(word) for word in command]
    if words[0] != sys.executable:
        return SUBPROCESS_RUN(command, **how)
    if words[1:3] == ["-m", "torch.distributed.run"]:
        count = int(words[4].removeprefix("--nproc-per-node="))
        code, out, err = warm_processes.run_together(words[5:], {**environment(), **how.get("env", {})}, count)
        assert code == 0, err
    else:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
            patch.setattr(sys, "argv", words[1:])
            script = partial(runpy.run_path, words[1], run_name="__main__")
            ended_well(partial(main, words[3:]) if words[1] == "-m" else script)
        out = printed.getvalue()
    return subprocess.CompletedProcess(command, 0, out if how.get("text") else out.encode())


class Started(subprocess.Popen):
    """`subprocess.Popen`; the command deixis is forked."""

    def __new__(cls, command: Sequence[Any], **how: Any) -> Any:
        words = [str(word) for word in command]
        if words[:3] == [sys.executable, "-m", "deixis"]:
            return warm_processes.start(words[1:], environment())
        return POPEN(command, **how)


def ended_well(program: Callable[[], object]) -> None:
    """Call it; it may end the process, with exit code 0."""
    try:
        program()
    except SystemExit as ended:
        if ended.code:
            raise AssertionError(ended.code) from ended


SUBPROCESS_RUN, POPEN = subprocess.run, subprocess.Popen


STARTS = sorted(file.stem for file in BENCHMARKS.glob("*.py") if file.stem not in PARTS)


@pytest.mark.parametrize("name", STARTS)
def test_it_starts(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All that it imports is there; what it is for is told, and it is run below."""
    assert name in {*RUNS, "bench_exports"}  # the latter in tests/unit/models/test_exported.py, which has an export
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
    if name in WITH_RAY and importlib.util.find_spec("ray") is None:
        pytest.skip("ray is absent; install deixis[ray]")
    arguments = RUNS[name]
    if "{segmenter}" in arguments:
        monkeypatch.syspath_prepend(BENCHMARKS)
        from harness import write_random_segmenter

        arguments = arguments.replace("{segmenter}", str(write_random_segmenter(tmp_path / "model")))
    before = set((BENCHMARKS / "results").iterdir())
    ended_well(partial(start, name, arguments.format(folder=tmp_path), monkeypatch))
    assert capsys.readouterr().out.count("\n") > 1
    assert set((BENCHMARKS / "results").iterdir()) == before  # nothing is written unless asked
