"""The built-in detector as ONNX; apart, since a file of tests runs in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_exports import NAMES, export_by_command

from deixis.options.model_export import ModelExportOptions


@pytest.mark.slow
def test_parity_of_the_builtin_detector(tmp_path: Path) -> None:
    said = export_by_command(ModelExportOptions(model="builtin", names=NAMES, output=tmp_path / "x.onnx"))
    assert sum("onnxruntime against PyTorch" in line for line in said) == 2  # and no error
