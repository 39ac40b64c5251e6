"""The ONNX export: without padding decisions frozen in, equal to the detector at sizes it was not traced with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_detectors import perturb, small_config
from tiny_exports import NAMES, bundle_of
from transformers import ResNetConfig

from deixis.data.detect.prompts import build_prompt
from deixis.errors import ModelError
from deixis.models.adapters import add_lora
from deixis.models.grounding_dino import GroundingDino
from deixis.models.onnx import runtimes
from deixis.models.onnx.check import Difference, Outputs, compare_export, matched_difference, passes
from deixis.models.onnx.export import export_detector, graphs
from deixis.models.onnx.swin import SwinGraph

SIZES = [(96, 64), (97, 131), (30, 21), (64, 224)]


@pytest.mark.parametrize("size_hw", SIZES)
def test_swin_without_decisions_equals_transformers(size_hw: tuple[int, int]) -> None:
    model = GroundingDino(small_config()).eval()
    perturb(model)
    graph = SwinGraph(model.config.backbone_config, model.state_dict()).eval()
    pixels = torch.randn(2, 3, *size_hw)
    with torch.no_grad():
        wanted, found = model.model.backbone(pixels), graph(pixels)
    assert len(wanted) == len(found) == 2
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flavour", ["grounding-dino", "mm-grounding-dino"])
def test_graphs_equal_the_detector_and_leave_it_alone(flavour: str) -> None:
    bundle = bundle_of(flavour)
    before = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    image, text = graphs(bundle, prompt)
    ids = torch.tensor([prompt.input_ids])
    any_names = graphs(bundle, None)[1]
    class_tokens = torch.from_numpy(prompt.positive_map)
    for size_hw in SIZES[:2]:
        pixels = torch.randn(2, 3, *size_hw)
        out = bundle.model(pixels, torch.ones(2, *size_hw, dtype=torch.bool), ids.expand(2, -1), ids.expand(2, -1) > 0)
        levels = image(pixels)
        logits, boxes, scores = text(levels)
        torch.testing.assert_close(logits, out["pred_logits"][..., : ids.shape[1]], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(boxes, out["pred_boxes"], atol=1e-5, rtol=1e-4)
        assert scores.shape == (2, 15, 3)
        red_square = logits.sigmoid()[0, :, 1:3].mean(-1)  # [CLS] red square .
        torch.testing.assert_close(scores[0, :, 0], red_square)
        for asked, fixed in zip(any_names(levels, ids, class_tokens), (logits, boxes, scores), strict=True):
            torch.testing.assert_close(asked, fixed, atol=1e-5, rtol=1e-4)
    after = bundle.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(getattr(module, "implementation", None) is None for module in bundle.model.modules())


def test_models_that_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundle_of("grounding-dino")
    with pytest.raises(ModelError, match="only Swin"):
        SwinGraph(ResNetConfig(), bundle.model.state_dict())
    add_lora(bundle.model, rank=2)
    pytest.importorskip("onnxscript", reason="onnxscript is absent; install deixis[onnx]")
    with pytest.raises(ModelError, match="merge them"):
        export_detector(bundle, NAMES, tmp_path / "x.onnx")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(runtimes, "import_module", absent)
    with pytest.raises(ModelError, match=r"onnx is not installed; pip install 'deixis\[onnx\]'"):
        export_detector(bundle_of("grounding-dino"), NAMES, tmp_path / "x.onnx")


def test_a_damaged_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is absent; install deixis[onnx]")
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    bundle = bundle_of("grounding-dino")
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    with pytest.raises(ModelError, match="onnxruntime cannot load it"):
        compare_export(tmp_path / "x.onnx", bundle, prompt, sizes_hw=[(64, 64)])


def test_proposals_that_changed_places_are_no_difference() -> None:
    """As rounding exchanges two of nearly equal score: by position nearly everything would differ."""
    rng = np.random.default_rng(0)
    ours = Outputs(rng.normal(size=(2, 40, 6)), rng.random((2, 40, 4)), rng.random((2, 40, 3)))
    order = rng.permutation(40)
    theirs = Outputs(*(output[:, order] + 1e-6 for output in ours))
    found = matched_difference(theirs, ours, (8, 8), tolerance=1e-3)
    assert found.matched == 1
    assert max(found.logits, found.boxes, found.scores) < 1e-5
    assert passes([found], "fp32")


def test_a_few_exchanged_queries_pass_and_numbers_that_are_none_do_not() -> None:
    rng = np.random.default_rng(0)
    ours = Outputs(rng.normal(size=(1, 100, 6)), rng.random((1, 100, 4)), rng.random((1, 100, 3)))
    theirs = Outputs(*(output.copy() for output in ours))
    theirs.boxes[0, :2] += 0.3
    found = matched_difference(theirs, ours, (8, 8), tolerance=1e-3)
    assert found.matched == pytest.approx(0.98)
    assert passes([found], "fp32")
    theirs.scores[:] = np.nan
    found = matched_difference(theirs, ours, (8, 8), tolerance=1e-3)
    assert found.matched == 0
    assert not passes([found, Difference((8, 8), 0, 0, 0, 1.0)], "fp32")
