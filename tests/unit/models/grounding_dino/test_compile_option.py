"""`--compile`: the same losses, gradients and names as without, and one line where nothing can be compiled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import environment, write_tiny_model

from deixis.data.scenes.images import scenes
from deixis.errors import OptionError
from deixis.models.grounding_dino import load_grounding_dino
from deixis.models.grounding_dino.compiling import BUCKET_PX, compile_layers
from deixis.options.detect_train import DetectData, DetectHardware, DetectImages, DetectTrainOptions
from deixis.options.groups import Loop
from deixis.recipes.detect.data.feed import training_feed
from deixis.recipes.detect.data.prompts import training_prompts


@pytest.mark.slow
def test_a_compiled_first_step_is_the_plain_one(tmp_path: Path) -> None:
    """In a process of its own: under the tests' shape checks a compiler would compile those too."""
    here = Path(__file__).parent
    env = environment()
    env["PYTHONPATH"] = f"{here.parents[2] / 'support'}:{env.get('PYTHONPATH', '')}"
    model = write_tiny_model(tmp_path / "model", dropout=0.0)
    command = [sys.executable, str(here / "compiled_step.py"), str(model)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same names"]
    assert found["compiled layers"] == 3
    assert found["losses"][0] == pytest.approx(found["losses"][1], rel=1e-5)
    assert found["worst gradient"] < 1e-3


def test_no_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none(function: object) -> object:
        def fail(x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found\nand a trace")

        return fail

    monkeypatch.setattr(torch, "compile", none)
    model = load_grounding_dino(write_tiny_model(tmp_path)).model
    with pytest.raises(OptionError, match=r"^--compile: .*no working C\+\+ compiler found\); install .*") as raised:
        compile_layers(model, torch.device("cpu"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("compiled", [False, True])
def test_batches_of_a_compiled_run_come_in_few_sizes(compiled: bool, tmp_path: Path) -> None:
    bundle = load_grounding_dino(write_tiny_model(tmp_path))
    options = DetectTrainOptions(data=("unused",), compile=compiled, workers=0, batch_size=2)
    training = scenes("demo_train", 2, 1)
    prompts = training_prompts(None, bundle, training)
    feed = training_feed(
        training,
        prompts,
        bundle.image_size,
        data=options.group(DetectData),
        images=options.group(DetectImages),
        loop=options.group(Loop),
        hardware=options.group(DetectHardware),
        seed=0,
    )
    divisor = BUCKET_PX if compiled else 1
    assert feed.collate.keywords == {"divisor": divisor}
    pair = [feed.dataset[(0, index)] for index in range(2)]
    batch = feed.collate(pair)
    assert all(side % divisor == 0 for side in batch.pixels_u8.shape[-2:])
