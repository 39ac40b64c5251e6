"""The built-in detector and one of the other flavour as ONNX; apart, since a file of tests runs in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_exports import NAMES, export_by_command, tiny_folder

from deixis.options.model_export import ModelExportOptions


@pytest.mark.slow
@pytest.mark.parametrize("model", ["builtin", "grounding-dino"])
def test_parity_of_the_builtin_detector_and_of_the_other_flavour(model: str, tmp_path: Path) -> None:
    if model == "grounding-dino":
        model = str(tiny_folder(tmp_path / "model", model))
    said = export_by_command(ModelExportOptions(model=model, names=NAMES, output=tmp_path / "x.onnx"))
    assert sum("onnxruntime against PyTorch" in line for line in said) == 2  # and no error
