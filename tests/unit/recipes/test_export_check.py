"""An exported segmenter passes only where every file is near the model; NaN is near nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.onnx import sam as sam_files
from deixis.models.onnx.export import require_half
from deixis.models.onnx.sam import SAM_FILES, compare_sam
from deixis.options.model_export import ModelExportOptions
from deixis.recipes.model import export

NAN = math.nan


@pytest.mark.parametrize("found", [(1e-7, NAN, 1e-7), (NAN, 1e-7, 1e-7), (1e-7, 1e-7, NAN), (1e-7, 1e-7, 0.5)])
def test_one_file_that_differs_fails(found: Sequence[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(bundle: object, folder: Path) -> None:
        folder.mkdir()
        for name in SAM_FILES:
            (folder / name).write_bytes(b"")

    monkeypatch.setattr(export, "layout_of", lambda model: "sa2va")
    monkeypatch.setattr(export, "load_sa2va", lambda model: None)
    monkeypatch.setattr(export, "export_sam", write)
    monkeypatch.setattr(export, "compare_sam", lambda bundle, folder: dict(zip(SAM_FILES, found, strict=True)))
    with pytest.raises(ModelError, match="differs from the model by more than"):
        export.export_model(ModelExportOptions(model="a", output=tmp_path / "sam"))


@pytest.mark.parametrize("wrong", range(3))
def test_one_output_that_is_nan_is_the_difference(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = [torch.ones(1, 2), torch.ones(1, 3), torch.ones(1, 4)]

    def run(path: Path, inputs: dict[str, Tensor]) -> list[Tensor]:
        return [output * (NAN if number == wrong else 1) for number, output in enumerate(outputs)]

    monkeypatch.setattr(sam_files, "_run", run)
    monkeypatch.setattr(sam_files, "encode_image", lambda sam, pixels: tuple(outputs))
    for name in ("masks_of_boxes", "decode_masks"):
        monkeypatch.setattr(sam_files, name, lambda sam, prompts, levels, image: tuple(outputs))
    sam = SimpleNamespace(hidden_dim=4)
    sam.eval = lambda: sam
    bundle = SimpleNamespace(sam_px=8, model=SimpleNamespace(sam=sam))
    assert all(math.isnan(value) for value in compare_sam.__wrapped__(bundle, "folder").values())


@pytest.mark.parametrize(("version", "fine"), [("1.30.0", False), ("1.31.0", True), ("2.0", True)])
def test_half_precision_wants_a_runtime_that_loads_it(
    version: str, fine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.__version__", version)
    require_half(tmp_path / "a.onnx", "fp32")
    require_half(tmp_path / "a.xml", "fp16")
    if fine:
        require_half(tmp_path / "a.onnx", "fp16")
    else:
        with pytest.raises(ModelError, match=r"fp16 needs onnxruntime 1\.31, 1\.30\.0 is installed") as raised:
            require_half(tmp_path / "a.onnx", "fp16")
        assert "\n" not in str(raised.value)
