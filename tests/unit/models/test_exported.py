"""deixis runs its own exports: the same detections as the model, from ONNX Runtime and from OpenVINO."""

from __future__ import annotations

import json
import runpy
import shlex
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from packaging.version import Version
from tiny_exports import NAMES, export_by_command, tiny_folder

from deixis.data.detect.prompts import build_prompt
from deixis.errors import ModelError, OptionError, PromptError
from deixis.inference.detect.detector import load_detector
from deixis.models.checkpoints import load_any_detector, stored_record
from deixis.models.model_record import ModelRecord
from deixis.models.onnx.check import TOLERANCE, compare_export, passes
from deixis.models.onnx.export import HALF_SINCE, write_export
from deixis.models.onnx.facts import START, facts_of, read_facts
from deixis.models.onnx.runtimes import open_export
from deixis.options.model_export import ModelExportOptions
from deixis.options.model_info import ModelInfoOptions
from deixis.recipes.model.export import export_model
from deixis.recipes.model.info import model_info
from deixis.results.detections import Detections

pytestmark = pytest.mark.slow  # exports take half a minute each

Exported = tuple[Path, Path, list[str]]
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, shape, np.uint8) for shape in ((100, 150, 3), (100, 150, 3), (90, 60, 3))]


CHECK_SIZES = ((128, 171), (213, 100))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A detector with a token of its own, an edit and sinks, its ONNX file with built-in names, and what the command
    printed."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is absent; install deixis[onnx]")
    folder = tmp_path_factory.mktemp("onnx")
    model, path = tiny_folder(folder / "model", additions=True), folder / "deep" / "tiny.onnx"
    options = ModelExportOptions(model=str(model), names=NAMES, output=path)
    return model, path, export_by_command(options)


@pytest.fixture(scope="module")
def any_names(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A detector of the other flavour with the same additions, and its file, which has names as an input."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is absent; install deixis[onnx]")
    folder = tmp_path_factory.mktemp("any_names")
    model, path = tiny_folder(folder / "model", "grounding-dino", additions=True), folder / "any.onnx"
    options = ModelExportOptions(model=str(model), names=NAMES[:1], output=path, any_names=True)
    said = export_by_command(options)
    assert sum("onnxruntime against PyTorch" in line for line in said) == 2  # and no error
    return model, path


def detections(source: Path, names: tuple[str, ...] = NAMES, batch_size: int = 1) -> list[Detections]:
    detector = load_detector(source, "cpu")
    return detector.predict(PICTURES, names, 0.0, max_detections=12, batch_size=batch_size)


def assert_same(found: list[Detections], wanted: list[Detections], atol: float = 1e-3) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.labels == theirs.labels
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-4)
        np.testing.assert_allclose(mine.boxes_xyxy_px, theirs.boxes_xyxy_px, atol=150 * atol)


def rewritten(exported: Exported, path: Path, precision: str = "fp32", **changed: str) -> Path:
    """The exported graph in another precision or format, without exporting it again."""
    import onnx

    bundle = load_any_detector(exported[0])
    facts = facts_of(bundle, NAMES, build_prompt(NAMES, bundle.prompt_tokenizer), precision=precision)
    facts |= {START + name: text for name, text in changed.items()}
    write_export(onnx.load(exported[1]), path, facts, precision=precision)
    return path


def test_a_file_predicts_as_its_model(exported: Exported) -> None:
    model, path, _ = exported
    wanted = detections(model)
    assert_same(detections(path, batch_size=3), wanted)  # two of one size and one of another, in one batch
    one = detections(path, ("cat",))
    assert [set(found.labels) for found in one] == [{"cat"}] * 3
    best = max(score for score, label in zip(wanted[0].scores, wanted[0].labels, strict=True) if label == "cat")
    assert one[0].scores[0] == pytest.approx(best, abs=1e-4)


def test_names_that_are_not_built_in(exported: Exported) -> None:
    with pytest.raises(PromptError, match=r"tiny\.onnx: was exported for .* cat, got dog; .*any-names"):
        detections(exported[1], ("cat", "dog"))


@pytest.mark.slow
def test_a_file_whose_names_are_an_input_is_asked_for_any(any_names: tuple[Path, Path]) -> None:
    model, path = any_names
    assert stored_record(path) == ModelRecord(task="detector")
    assert_same(detections(path, batch_size=3), detections(model))
    others = ("a dog on a bench", "bus")
    assert_same(detections(path, others), detections(model, others))
    bundle = load_any_detector(model)
    prompt = build_prompt(others, bundle.prompt_tokenizer)
    (found,) = compare_export(path, bundle, prompt, sizes_hw=[(75, 160)], batch=3)
    assert found.matched == 1


def test_the_benchmark_of_exports(
    any_names: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = any_names
    words = f"--model {model} --graph {path} --only ONNX\\ fp32 --images 1 --repeats 1 --size 64 96"
    benchmarks = Path(__file__).parents[3] / "benchmarks"
    monkeypatch.syspath_prepend(benchmarks)
    monkeypatch.setattr("sys.argv", ["bench_exports.py", *shlex.split(words)])
    runpy.run_path(str(benchmarks / "bench_exports.py"), run_name="__main__")
    assert "| ONNX fp32 | " in capsys.readouterr().out


def test_model_info_of_a_file(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    model_info(ModelInfoOptions(model=str(exported[1])))
    out = capsys.readouterr().out
    assert f"{exported[1]}: exported detector of 15 queries" in out
    assert "asked for    red square, blue circle, cat" in out


def test_what_the_model_knows_travels_in_the_file(exported: Exported, tmp_path: Path) -> None:
    detector = load_detector(exported[1], "cpu")
    assert detector.names == NAMES
    assert detector.bundle.image_size == (96, 160)
    assert detector.bundle.model.queries == 15
    record = {"version": 1, "names": ["cat"], "thresholds": {"score": 0.6}, "class_thresholds": {"cat": 0.7}}
    path = rewritten(exported, tmp_path / "x.onnx", record=json.dumps(record))
    assert load_detector(path, "cpu").thresholds(["cat"]) == 0.7
    assert stored_record(path).names == NAMES


@pytest.mark.parametrize("name", ["half.onnx", "half.xml", "plain.xml"])
def test_other_precisions_and_openvino(name: str, exported: Exported, tmp_path: Path) -> None:
    if name.endswith(".xml"):
        pytest.importorskip("openvino", reason="openvino is absent; install deixis[openvino]")
    elif Version(onnxruntime.__version__) < Version(HALF_SINCE):
        pytest.skip(f"onnxruntime {onnxruntime.__version__} cannot load files of half precision")
    precision = "fp16" if name.startswith("half") else "fp32"
    path = rewritten(exported, tmp_path / name, precision)
    bundle = load_any_detector(exported[0])
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    found = compare_export(path, bundle, prompt, sizes_hw=[(128, 171)], precision=precision)
    assert passes(found, precision)
    assert found[0].matched > 0.95
    if precision == "fp16":
        assert found[0].logits > 1e-5  # it is not fp32 under another name
    else:
        assert found[0].logits < TOLERANCE["fp32"]
        assert_same(detections(path), detections(exported[0]))
        assert json.loads(open_export(path).texts["deixis.names"]) == list(NAMES)


def test_eight_bits(exported: Exported, tmp_path: Path) -> None:
    import onnx

    path = rewritten(exported, tmp_path / "small.onnx", "int8")
    graph = onnx.load(path).graph
    kinds = {node.op_type for node in graph.node}
    assert {"MatMulInteger", "DynamicQuantizeLinear"} <= kinds
    weights = [one for one in graph.initializer if one.data_type == onnx.TensorProto.INT8]
    assert len(weights) > 20
    found = detections(path)
    assert [len(one) for one in found] == [12, 12, 12]
    best = [one.scores[0] for one in detections(exported[0])]
    np.testing.assert_allclose([one.scores[0] for one in found], best, atol=0.1)


@pytest.mark.parametrize(
    ("name", "text"),
    [("image_size", "[0, 5]"), ("image_size", '"800"'), ("names", "[1]"), ("image_std", "[0, 1, 1]"), ("record", "[]"),
     ("image_mean", "[1, 2, true]"), ("image_mean", f"[1, 2, 1{'0' * 400}]"), ("image_mean", "[1, 2, null]"),
     ("names", "["), ("queries", "true"), ("image_size", "[800, 9999999]"), ("record", '{"version": 99}')],
)  # fmt: skip
def test_damaged_metadata_is_one_line(name: str, text: str) -> None:
    with pytest.raises(ModelError, match=r"^x\.onnx: ") as raised:
        read_facts({"deixis.image_size": "[800, 1333]", f"deixis.{name}": text}, "x.onnx")
    assert "\n" not in str(raised.value)


def test_files_that_are_no_exports(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is absent; install deixis[onnx]")
    with pytest.raises(ModelError, match="no such file"):
        load_detector(tmp_path / "absent.onnx", "cpu")
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="onnxruntime cannot load it"):
        load_detector(tmp_path / "broken.onnx", "cpu")
    with pytest.raises(ModelError, match="deixis did not export this file"):
        read_facts({"author": "somebody"}, "x.onnx")
    with pytest.raises(ModelError, match="only predicts"):
        load_any_detector(tmp_path / "broken.onnx")


def test_files_of_earlier_versions_have_fewer_facts() -> None:
    facts = read_facts({"deixis.names": '["cat"]', "deixis.image_size": "[800, 1333]"}, "x.onnx")
    assert facts.names == ("cat",)
    assert facts.record == ModelRecord()
    assert torch.tensor(facts.std).gt(0).all()


def test_the_command_checks_two_sizes(exported: tuple[Path, Path, list[str]]) -> None:
    model, path, said = exported
    assert said[0].startswith(f"wrote {path}, ")
    assert [line.partition(": logits ")[0] for line in said[1:]] == [
        "onnxruntime against PyTorch at 96 x 128",
        "onnxruntime against PyTorch at 111 x 93",
    ]
    assert [file.name for file in path.parent.iterdir()] == ["tiny.onnx"]
    with pytest.raises(OptionError, match="exists"):
        export_model(ModelExportOptions(model=str(model), names=NAMES, output=path))


def test_parity_at_other_sizes(exported: tuple[Path, Path, list[str]]) -> None:
    bundle = load_any_detector(exported[0])
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    sizes = [(128, 213), (101, 75), (300, 333), (64, 400)]
    found = compare_export(exported[1], bundle, prompt, sizes_hw=sizes, seed=3)
    assert [each.size_hw for each in found] == sizes
    for each in found:
        assert max(each.logits, each.boxes, each.scores) < TOLERANCE["fp32"]
        assert each.matched == 1


def test_parity_where_cells_that_may_not_be_proposed_win(exported: tuple[Path, Path, list[str]]) -> None:
    """The outermost of more than 50 cells in a row: their queries start at the corner, where epsilons act."""
    bundle = load_any_detector(exported[0])
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    ids = torch.tensor([prompt.input_ids])
    with torch.no_grad():
        out = bundle.model(torch.randn(1, 3, 40, 900), torch.ones(1, 40, 900, dtype=torch.bool), ids, ids > 0)
    assert (out["enc_outputs"]["pred_boxes"] == 1).all(-1).any()
    (found,) = compare_export(exported[1], bundle, prompt, sizes_hw=[(40, 900)])
    assert max(found.logits, found.boxes, found.scores) < TOLERANCE["fp32"]
    assert found.matched == 1


def test_a_different_model_is_noticed(exported: tuple[Path, Path, list[str]]) -> None:
    bundle = load_any_detector(exported[0])
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    with torch.no_grad():
        bundle.model.class_embed[-1].bias.add_(0.1)
    (found,) = compare_export(exported[1], bundle, prompt, sizes_hw=[(128, 128)])
    assert found.logits == pytest.approx(0.1, abs=1e-3)
    assert found.matched == 0
    assert not passes([found], "fp32")


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
    assert (pixels.name, sides) == ("pixel_values", ["batch", 3, "height", "width"])
    assert [output.name for output in model.graph.output] == ["logits", "boxes", "scores"]
