"""The ONNX export: without padding decisions frozen in, equal to the detector at sizes it was not traced with."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import jaxtyping
import pytest
import torch
from small_detectors import bert_tokenizer, perturb, small_config
from transformers import ResNetConfig, SwinConfig

from deixis.data.detect.prompts import build_prompt
from deixis.errors import ModelError, OptionError
from deixis.models.adapters import add_lora
from deixis.models.checkpoints import load_any_detector
from deixis.models.grounding_dino import GroundingDino, GroundingDinoBundle, init_bundle, save_grounding_dino
from deixis.models.grounding_dino.layers.positions import encoder_reference_points
from deixis.models.onnx import export
from deixis.models.onnx.export import TOLERANCE, compare_onnx, export_onnx, graphs
from deixis.models.onnx.swin import SwinGraph
from deixis.options.model_export import ModelExportOptions
from deixis.recipes.model.tools import export_model

NAMES = ("red square", "blue circle", "cat")
SIZES = [(96, 64), (97, 131), (30, 21), (64, 224)]


def bundle_of(flavour: str) -> GroundingDinoBundle:
    torch.manual_seed(0)
    bundle = init_bundle(small_config(flavour, num_queries=15), bert_tokenizer(), (96, 160))
    perturb(bundle.model.eval())
    return bundle


@pytest.mark.parametrize("size_hw", SIZES)
def test_swin_without_decisions_equals_transformers(size_hw: tuple[int, int]) -> None:
    model = GroundingDino(small_config()).eval()
    perturb(model)
    graph = SwinGraph(model.config.backbone_config, model.state_dict()).eval()
    pixels = torch.randn(1, 3, *size_hw)
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
    for size_hw in SIZES[:2]:
        pixels = torch.randn(1, 3, *size_hw)
        out = bundle.model(pixels, torch.ones(1, *size_hw, dtype=torch.bool), ids, ids > 0)
        logits, boxes, scores = text(image(pixels))
        torch.testing.assert_close(logits, out["pred_logits"][..., : ids.shape[1]], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(boxes, out["pred_boxes"], atol=1e-5, rtol=1e-4)
        assert scores.shape == (1, 15, 3)
        red_square = logits.sigmoid()[0, :, 1:3].mean(-1)  # [CLS] red square .
        torch.testing.assert_close(scores[0, :, 0], red_square)
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
        export_onnx(bundle, NAMES, tmp_path / "x.onnx")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(export, "import_module", absent)
    with pytest.raises(ModelError, match=r"onnx is not installed; pip install 'deixis\[onnx\]'"):
        export_onnx(bundle_of("grounding-dino"), NAMES, tmp_path / "x.onnx")


def tiny_folder(folder: Path) -> Path:
    """A detector that is exported in seconds: two Swin stages with shifted windows, two levels, 1 + 2 layers."""
    swin = SwinConfig(embed_dim=16, depths=[2, 2], num_heads=[1, 2], window_size=4, out_features=["stage2"])
    config = small_config(
        "mm-grounding-dino",
        backbone_config=swin,
        num_feature_levels=2,
        d_model=32,
        encoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=15,
    )
    torch.manual_seed(0)
    bundle = init_bundle(config, bert_tokenizer(), (96, 160))
    perturb(bundle.model)
    let_empty_cells_win(bundle)
    save_grounding_dino(bundle, folder)
    return folder


def let_empty_cells_win(bundle: GroundingDinoBundle) -> None:
    """Cells that may not be proposed are zeros, and so this bias alone: here the text itself, which scores best."""
    model, ids = bundle.model.eval(), torch.tensor([build_prompt(NAMES, bundle.prompt_tokenizer).input_ids])
    with torch.no_grad():
        text = model.encode_text(ids, ids > 0)
        pyramid = model.encode_image(torch.zeros(1, 3, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool))
        reference = encoder_reference_points(pyramid.shapes_hw, pyramid.valid_wh)
        _, fused = model.model.encoder(pyramid, text, reference)
        model.model.enc_output.bias.copy_(fused[0, 1])


def export_by_command(options: ModelExportOptions) -> list[str]:
    """The lines that the command printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        # The exporter runs the code with symbols for sizes, which are no `int`.
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        export_model(options)
    return printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A detector, its ONNX file, and what the command printed."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is absent; install deixis[onnx]")
    folder = tmp_path_factory.mktemp("onnx")
    model, path = tiny_folder(folder / "model"), folder / "deep" / "tiny.onnx"
    options = ModelExportOptions(model=str(model), names=NAMES, output=path, check_sizes=((128, 171), (213, 100)))
    return model, path, export_by_command(options)


def test_the_command_checks_two_sizes(exported: tuple[Path, Path, list[str]]) -> None:
    model, path, said = exported
    assert said[0].startswith(f"wrote {path}, ")
    assert [line.partition(": logits ")[0] for line in said[1:]] == [
        "onnxruntime against PyTorch at 128 x 171",
        "onnxruntime against PyTorch at 213 x 100",
    ]
    assert [file.name for file in path.parent.iterdir()] == ["tiny.onnx"]
    with pytest.raises(OptionError, match="exists"):
        export_model(ModelExportOptions(model=str(model), names=NAMES, output=path))


def test_parity_at_other_sizes(exported: tuple[Path, Path, list[str]]) -> None:
    bundle = load_any_detector(exported[0])
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    sizes = [(128, 213), (101, 75), (300, 333), (64, 400)]
    found = compare_onnx(exported[1], bundle, prompt, sizes_hw=sizes, seed=3)
    assert [each.size_hw for each in found] == sizes
    for each in found:
        assert max(each.logits, each.boxes, each.scores) < TOLERANCE


def test_parity_where_cells_that_may_not_be_proposed_win(exported: tuple[Path, Path, list[str]]) -> None:
    """The outermost of more than 50 cells in a row: their queries start at the corner, where epsilons act."""
    bundle = load_any_detector(exported[0])
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    ids = torch.tensor([prompt.input_ids])
    with torch.no_grad():
        out = bundle.model(torch.randn(1, 3, 40, 900), torch.ones(1, 40, 900, dtype=torch.bool), ids, ids > 0)
    assert (out["enc_outputs"]["pred_boxes"] == 1).all(-1).any()
    (found,) = compare_onnx(exported[1], bundle, prompt, sizes_hw=[(40, 900)])
    assert max(found.logits, found.boxes, found.scores) < TOLERANCE


def test_a_different_model_is_noticed(exported: tuple[Path, Path, list[str]]) -> None:
    bundle = load_any_detector(exported[0])
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    with torch.no_grad():
        bundle.model.class_embed[-1].bias.add_(0.1)
    (found,) = compare_onnx(exported[1], bundle, prompt, sizes_hw=[(128, 128)])
    assert found.logits == pytest.approx(0.1, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["builtin", "grounding-dino"])
def test_parity_of_the_builtin_detector_and_of_the_other_flavour(model: str, tmp_path: Path) -> None:
    if model == "grounding-dino":
        save_grounding_dino(bundle_of(model), tmp_path / "model")
        model = str(tmp_path / "model")
    said = export_by_command(ModelExportOptions(model=model, names=NAMES, output=tmp_path / "x.onnx"))
    assert sum("onnxruntime against PyTorch" in line for line in said) == 2  # and no error


def test_the_file_says_how_to_use_it(exported: tuple[Path, Path, list[str]]) -> None:
    import onnx

    model = onnx.load(exported[1])
    facts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert facts["deixis.names"] == list(NAMES)
    assert facts["deixis.caption"] == "red square. blue circle. cat."
    assert facts["deixis.image_size"] == [96, 160]
    assert facts["deixis.image_mean"] == pytest.approx([0.485, 0.456, 0.406], abs=1e-3)
    (pixels,) = model.graph.input
    sides = [side.dim_param or side.dim_value for side in pixels.type.tensor_type.shape.dim]
    assert (pixels.name, sides) == ("pixel_values", [1, 3, "height", "width"])
    assert [output.name for output in model.graph.output] == ["logits", "boxes", "scores"]


def test_a_damaged_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is absent; install deixis[onnx]")
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    bundle = bundle_of("grounding-dino")
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    with pytest.raises(ModelError, match="onnxruntime cannot load it"):
        compare_onnx(tmp_path / "x.onnx", bundle, prompt, sizes_hw=[(64, 64)])
