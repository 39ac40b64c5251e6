"""Layers under `torch.compile`: no graph breaks, few graphs for all sizes, the same numbers and names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import environment


@pytest.mark.slow
def test_gradients_are_the_same_and_sizes_share_graphs() -> None:
    here = Path(__file__).parent
    env = environment()
    env["PYTHONPATH"] = f"{here.parents[2] / 'support'}:{env.get('PYTHONPATH', '')}"
    command = [sys.executable, str(here / "compiled_detector.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same names"]
    assert found["worst gradient"] < 1e-3
    assert found["graph breaks"] == 0
    assert (found["graphs"] <= 3, found["calls"]) == (True, 12)
