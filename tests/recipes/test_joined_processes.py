"""Processes that were started together train together, whatever device they find, or the run ends at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_runs import environment

from deixis.errors import OptionError
from deixis.training import processes

ASK = """
import os, pathlib, sys
from deixis.training.processes import make_accelerator
accelerator = make_accelerator()
answer = f"{accelerator.num_processes} {accelerator.device.type}"
(pathlib.Path(sys.argv[1]) / os.environ["RANK"]).write_text(answer)  # lines of two processes would mix
"""


@pytest.mark.slow
def test_two_processes_on_cpus_are_joined_without_being_told_so(tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(ASK)
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    asked = [*launch, str(tmp_path / "ask.py"), str(tmp_path)]
    done = subprocess.run(asked, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == ["2 cpu", "2 cpu"]


def test_processes_that_would_train_alone_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Accelerator", lambda **how: SimpleNamespace(num_processes=1, device="mps"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"2 processes were started, and on mps .* --gpus 0"):
        processes.make_accelerator()
