"""`deixis doctor` and `deixis model bench` on a small detector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_detectors import bert_tokenizer, perturb, small_config

from deixis.models.grounding_dino import init_bundle, save_grounding_dino
from deixis.ops.kernel_check import KernelDifference
from deixis.options.doctor import DoctorOptions
from deixis.options.model_bench import ModelBenchOptions
from deixis.recipes import doctor as page
from deixis.recipes.model.bench import bench_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("doctor") / "model"
    torch.manual_seed(0)
    bundle = init_bundle(small_config("grounding-dino"), bert_tokenizer(), (96, 160))
    perturb(bundle.model)
    save_grounding_dino(bundle, folder)
    return str(folder)


def test_a_page_of_a_machine_that_is_well(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = page.doctor(DoctorOptions(model=model, device="cpu"))
    lines = capsys.readouterr().out.splitlines()
    assert code == 0, lines
    assert lines[-1] == "all is well"
    assert 12 <= len(lines) <= 40
    topics = {line[6:20].strip() for line in lines[:-1]}
    assert topics >= {"system", "processor", "libraries", "precision", "kernels", "model", "data path"}
    kernels = [line for line in lines if line[6:20].strip() == "kernels"]
    assert [line[:2] for line in kernels] == ["ok", "ok"]
    assert "numba on cpu, float32" in kernels[0]
    assert "100% of 15 outputs" in "".join(lines) or "outputs within 0.005 of transformers'" in "".join(lines)


def test_what_is_not_well_decides_the_exit_code(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Iterator[page.Line]:
        yield page.Line("ok", "data path", "half of it")
        raise RuntimeError("disk on fire\nbadly")

    wrong = KernelDifference(0.5, float("nan"))
    monkeypatch.setattr(page, "difference_of", lambda *_: wrong)
    monkeypatch.setattr(page, "data_path", broken)
    monkeypatch.setattr(page, "beside_transformers", lambda *_: iter(()))
    code = page.doctor(DoctorOptions(model=model, device="cpu"))
    out = capsys.readouterr().out
    assert code == 1
    assert "FAIL  kernels        numba on cpu, float32: forward 5e-01, backward nan" in out
    assert "FAIL  error          RuntimeError: disk on fire badly" in out
    assert out.splitlines()[-1] == "3 of these are not well; they are marked FAIL"


def test_a_model_that_differs_is_noticed(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = page.plain_detector

    def other(bundle: object) -> object:
        plain = genuine(bundle)
        with torch.no_grad():
            plain.model.enc_output.weight.mul_(1.5)
        return plain

    monkeypatch.setattr(page, "plain_detector", other)
    lines = list(page.beside_transformers(model, None, torch.device("cpu")))
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
