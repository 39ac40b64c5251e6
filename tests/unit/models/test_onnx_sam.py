"""SAM 2 of a segmenter as ONNX: encoder, and decoder for boxes and for phrases, beside PyTorch."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import jaxtyping
import pytest
import torch
from small_segmenters import tiny_segmenter

from deixis.errors import OptionError
from deixis.models.onnx.sam import BOXES, ENCODER, SAM_FILES, compare_sam
from deixis.models.sa2va import save_sa2va
from deixis.options.model_export import ModelExportOptions
from deixis.recipes.model.export import export_model

pytestmark = pytest.mark.slow  # three exports of ten seconds each


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A segmenter, the folder of its SAM 2, and what the command printed."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is absent; install deixis[onnx]")
    folder = tmp_path_factory.mktemp("sam")
    save_sa2va(tiny_segmenter(), folder / "model")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the exporter's sizes are symbols
        export_model(ModelExportOptions(model=str(folder / "model"), output=folder / "sam"))
    return folder / "model", folder / "sam", printed.getvalue().splitlines()


def test_three_files_that_agree_with_pytorch(exported: tuple[Path, Path, list[str]]) -> None:
    _, folder, said = exported
    assert sorted(path.name for path in folder.iterdir()) == sorted(SAM_FILES)
    assert [line.partition(", ")[0] for line in said] == [f"wrote {folder / name}" for name in SAM_FILES]
    found = compare_sam(tiny_segmenter(), folder, seed=5)
    assert found.keys() == set(SAM_FILES)
    assert max(found.values()) < 1e-4


def test_other_weights_are_noticed(exported: tuple[Path, Path, list[str]]) -> None:
    found = compare_sam(tiny_segmenter(seed=1), exported[1])
    assert min(found.values()) > 1e-2


def test_batches_and_objects_are_variable(exported: tuple[Path, Path, list[str]]) -> None:
    import onnxruntime

    encoder, decoder = (onnxruntime.InferenceSession(str(exported[1] / name)) for name in (ENCODER, BOXES))
    assert json.loads(encoder.get_modelmeta().custom_metadata_map["deixis.image_side"]) == 64
    levels = encoder.run(None, {"pixels": torch.randn(1, 3, 64, 64).numpy()})
    assert [len(level) for level in levels] == [1, 1, 1]
    given = dict(zip(("fine", "middle", "coarse"), levels, strict=True))
    masks, ious, scores = decoder.run(None, {**given, "boxes": torch.rand(5, 4).numpy() * 64})
    assert (masks.shape, ious.shape, scores.shape) == ((5, 3, 16, 16), (5, 3), (5,))


def test_options_of_detectors_are_refused(exported: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--names, --any-names: for detectors"):
        export_model(
            ModelExportOptions(model=str(exported[0]), names=("cat",), any_names=True, output=tmp_path / "sam")
        )
    assert not (tmp_path / "sam").exists()
