"""`deixis doctor` and `deixis model bench` on a small detector."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from small_detectors import bert_tokenizer, perturb, small_config

from deixis.data.formats import read_dataset
from deixis.errors import DataError
from deixis.models.builtin import builtin_folder
from deixis.models.grounding_dino import init_bundle, save_grounding_dino
from deixis.ops.kernel_check import KernelDifference
from deixis.options.doctor import DoctorOptions
from deixis.options.model_bench import ModelBenchOptions
from deixis.recipes import doctor as page
from deixis.recipes import machine as machine_lines
from deixis.recipes.model.bench import bench_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("doctor") / "model"
    torch.manual_seed(0)
    bundle = init_bundle(small_config("grounding-dino"), bert_tokenizer(), (96, 160))
    perturb(bundle.model)
    save_grounding_dino(bundle, folder)
    return str(folder)


def cells(page_text: str) -> list[list[str]]:
    """The rows of the page: verdict, topic, text."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in page_text.splitlines() if "│" in line]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.mark.usefixtures("wide")
def test_a_page_of_a_machine_that_is_well(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_lines, "LITTLE_GIB", 0)
    code = page.doctor(DoctorOptions(model=model, device="cpu"))
    out = capsys.readouterr().out
    rows = cells(out)
    assert code == 0, out
    assert out.splitlines()[-1] == "all is well"
    assert 25 <= len(out.splitlines()) <= 60
    of = {topic: [(verdict, text) for verdict, each, text in rows if each == topic] for _, topic, _ in rows}
    wanted = {"system", "processor", "device", "memory", "disk", "deixis", "libraries", "OpenCV", "precision"}
    assert set(of) >= wanted | {"kernels", "model", "data path", "optional"}
    assert [verdict for verdict, _ in of["kernels"]] == ["ok"] * 4
    assert of["kernels"][0][1].startswith("numba on cpu, float32: differs by forward")
    assert of["kernels"][3][1].startswith("reference on cpu, bfloat16")
    assert of["model"][0][0] == "ok"
    assert "outputs within 0.005 of transformers'" in of["model"][0][1]
    for name in ("torch", "transformers", "numba", "opencv-python-headless", "peft", "accelerate"):
        assert f"{name} {version(name)}" in of["libraries"][0][1]


@pytest.mark.usefixtures("wide")
def test_what_is_not_well_decides_the_exit_code(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Iterator[page.Line]:
        yield page.Line("ok", "data path", "half of it")
        raise RuntimeError("disk on fire\nbadly")

    wrong = KernelDifference(0.5, float("nan"))
    monkeypatch.setattr(page, "difference_of", lambda *_: wrong)
    monkeypatch.setattr(page, "implementations_of", lambda _: ("numba",))
    monkeypatch.setattr(page, "data_path", broken)
    monkeypatch.setattr(page, "beside_transformers", lambda *_: iter(()))
    code = page.doctor(DoctorOptions(model=model, device="cpu"))
    out = capsys.readouterr().out
    assert code == 1
    assert ["FAIL", "kernels", "numba on cpu, float32: differs by forward 5e-01, backward nan"] in cells(out)
    assert ["FAIL", "data path", "RuntimeError: disk on fire badly"] in cells(out)
    assert out.splitlines()[-1] == "3 of these are not well; they are marked FAIL"


def test_a_kernel_that_cannot_run_is_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def difference(implementation: str, *_: object) -> KernelDifference:
        if implementation == "triton":
            raise RuntimeError("no compiler")
        return KernelDifference(0.0, 0.0)

    monkeypatch.setattr(page, "difference_of", difference)
    monkeypatch.setattr(page, "implementations_of", lambda _: ("triton", "reference"))
    found = [(line.verdict, line.text.partition(",")[0]) for line in page.kernels(torch.device("cpu"))]
    assert found == [("FAIL", "triton on cpu")] * 2 + [("ok", "reference on cpu")] * 2


def test_a_second_opencv_and_old_libraries_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = machine_lines.version_of
    versions = {"opencv-python": "4.12.0", "transformers": "5.1.0", "peft": ""}
    monkeypatch.setattr(machine_lines, "version_of", lambda name: versions.get(name, genuine(name)))
    lines = {line.topic: line for line in machine_lines.libraries()}
    assert lines["libraries"].verdict == lines["OpenCV"].verdict == "FAIL"
    assert "transformers 5.1.0, needed >=5.23" in lines["libraries"].text
    assert "peft is missing, needed >=" in lines["libraries"].text
    assert "pip uninstall -y opencv-python opencv-python-headless" in lines["OpenCV"].text


def test_a_library_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(name: str) -> None:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(machine_lines, "import_module", loaded)
    failed = [line.text for line in machine_lines.libraries() if line.verdict == "FAIL"]
    assert failed == ["cv2 does not load: ImportError: libGL.so.1: cannot open shared object file"]


def test_optional_packages_say_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_lines, "version_of", lambda name: "1.2" if name == "pandas" else "")
    texts = [line.text for line in machine_lines.optional()]
    assert "pandas 1.2: results as tables" in texts
    assert "onnx is not installed: exports to ONNX; pip install 'deixis[onnx]'" in texts


def test_the_users_data_is_timed_and_gives_the_picture(tmp_path: Path) -> None:
    dataset = read_dataset("scenes:split=demo_val,count=3,seed=1")
    picture = page.picture_of(None, dataset)
    assert picture.names == dataset.vocabulary.names
    assert picture.pixels_u8.ndim == 3
    (line,) = page.data_path(dataset)
    assert "pictures of the data per second" in line.text
    with pytest.raises(DataError, match=r"absent\.jpg"):
        page.picture_of(tmp_path / "absent.jpg", None)


def test_a_segmenter_has_nothing_to_compare_and_a_model_that_is_not_there_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = page.picture_of(None, None)
    step = partial(page.beside_transformers, "no/such/model", shown, torch.device("cpu"))
    (line,) = page._guarded("model", step)
    assert (line.verdict, line.topic) == ("FAIL", "model")
    assert "no/such/model" in line.text
    segmenter, loaded = str(builtin_folder("segmenter")), list[str]()
    monkeypatch.setattr(page, "load_sa2va", loaded.append)
    (line,) = page.beside_transformers(segmenter, shown, torch.device("cpu"))
    assert (line.verdict, line.text.startswith(f"{segmenter}: a segmenter, loads"), loaded) == ("ok", True, [segmenter])


def test_a_model_that_differs_is_noticed(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = page.plain_detector

    def other(bundle: object) -> object:
        plain = genuine(bundle)
        with torch.no_grad():
            plain.model.enc_output.weight.mul_(1.5)
        return plain

    monkeypatch.setattr(page, "plain_detector", other)
    lines = list(page.beside_transformers(model, page.picture_of(None, None), torch.device("cpu")))
    assert lines[0].verdict == "FAIL"


def test_latencies_by_format(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    formats = ("deixis", "deixis-bf16", "transformers")
    found = bench_model(ModelBenchOptions(model=model, size=(64, 96), repeats=2, formats=formats, device="cpu"))
    assert list(found) == list(formats)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in found.values())
    out = capsys.readouterr().out
    assert "64 x 96, 5 names" in out
    assert "transformers" in out


def test_what_is_not_installed_is_left_out_with_a_line(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from deixis.errors import ModelError
    from deixis.recipes.model import bench

    def absent(*_: object, **__: object) -> None:
        raise ModelError("onnx is not installed; pip install 'deixis[onnx]'")

    monkeypatch.setattr(bench, "export_detector", absent)
    options = ModelBenchOptions(model=model, size=(64, 96), repeats=1, formats=("deixis", "onnx"), device="cpu")
    assert list(bench_model(options)) == ["deixis"]
    assert "onnx is left out: onnx is not installed" in capsys.readouterr().err
