"""What the whole runs share."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from tiny_runs import write_tiny_model

from deixis.cli.main import main


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The folder of a random detector."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def deixis(monkeypatch, capsys, tmp_path):
    """The command, in this process and in a folder of its own: from arguments to (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(arguments):
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # restored afterwards
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run
