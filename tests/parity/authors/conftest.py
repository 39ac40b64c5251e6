"""Packages of the models' authors, each in a folder of its own and run in a process of its own.

They ask for torchvision, which is not installed beside deixis: `stand_ins/` holds the few functions that they use.
`scripts/parity` installs the packages into `.parity/` (or where DEIXIS_PARITY says) and runs these tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
FETCHED_BY_HAND = {
    "sa2va": "git clone https://github.com/bytedance/Sa2VA .parity/sa2va, or scripts/parity --sa2va FOLDER"
}
"""Code that no package holds, and where it is to be put."""
TheirAnswer = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def their_answer(tmp_path_factory) -> TheirAnswer:
    """A function (package, script, request) -> answer: `script`, in this folder, is run with the path of a file that
    holds the request, a dictionary saved by torch, and writes its answer to a second path. Skips where the package is
    absent."""

    def ask(package: str, script: str, request: dict[str, Any]) -> dict[str, Any]:
        installed = Path(os.environ.get("DEIXIS_PARITY", HERE.parents[2] / ".parity")) / package
        if not installed.is_dir():
            how = FETCHED_BY_HAND.get(package, "scripts/parity installs it and runs these tests")
            pytest.skip(f"{package} is absent; {how}")
        folder = tmp_path_factory.mktemp(package)
        torch.save(request, folder / "request.pt")
        done = subprocess.run(
            [sys.executable, HERE / script, folder / "request.pt", folder / "answer.pt"],
            env={**os.environ, "PYTHONPATH": f"{HERE / 'stand_ins'}{os.pathsep}{installed}"},
            capture_output=True,
            text=True,
            timeout=1800,  # of seconds: it may run beside much other work
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return torch.load(folder / "answer.pt")

    return ask
