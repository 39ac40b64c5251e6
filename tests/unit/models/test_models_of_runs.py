"""`--model runs/x`: the folder of a run stands for the model that it has trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from small_segmenters import tiny_segmenter
from tiny_runs import write_tiny_model
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.adapters import add_lora, save_adapter
from deixis.models.builtin import model_of_run
from deixis.models.checkpoints import load_any_detector, stored_record
from deixis.models.grounding_dino import load_grounding_dino
from deixis.models.model_record import ModelRecord, write_record
from deixis.models.sa2va import load_sa2va, save_sa2va


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base") / "model")


def write_adapter(base: Path, folder: Path, seed: int, named: str = "") -> Path:
    bundle = load_any_detector(str(base))
    add_lora(bundle.model, rank=2)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in bundle.model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    save_adapter(bundle.model, folder, base=named or str(base))
    return folder


def weights(source: Path | str) -> dict[str, Tensor]:
    return load_any_detector(str(source)).model.state_dict()


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_run_s_folder_stands_for_its_teacher(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/x"
    shutil.copytree(base, run / "teachers/grounding_dino")
    (run / "checkpoints/last").mkdir(parents=True)
    (run / "config.yaml").write_text("data: x")
    for place in (run, run / "teachers", f"{run}/"):
        assert_equal(weights(place), weights(base))
    assert load_any_detector(run).source == str(run / "teachers/grounding_dino")


def test_a_run_with_an_adapter(base: Path, tmp_path: Path) -> None:
    teacher = write_adapter(base, tmp_path / "runs/x/teachers/grounding_dino_lora", 1)
    assert_equal(weights(tmp_path / "runs/x"), weights(teacher))


def test_a_run_without_a_teacher_has_its_best_checkpoint(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/x"
    (run / "checkpoints/last").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"runs/x: the run has no trained model yet; continue it with --resume"):
        load_any_detector(run)
    shutil.copytree(base, run / "checkpoints/best")
    for place in (run, run / "checkpoints"):
        assert_equal(weights(place), weights(base))


def test_several_models_are_named(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/x"
    for name in ("grounding_dino", "grounding_dino_0.25"):
        shutil.copytree(base, run / "teachers" / name)
    with pytest.raises(
        ModelError, match=r"contains several models; name one of .*grounding_dino, .*grounding_dino_0.25"
    ):
        load_any_detector(run)
    with pytest.raises(ModelError, match=r"runs: contains runs and is no model; name one of them, such as .*runs/x"):
        load_any_detector(run.parent)


def test_other_folders_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("builtin", "somebody/model", str(tmp_path / "empty"), "x" * 5000):
        assert model_of_run(name) == name


def test_a_segmenter_s_run(tmp_path: Path) -> None:
    save_sa2va(tiny_segmenter(), tmp_path / "runs/x/teachers/sa2va")
    assert (
        load_sa2va(tmp_path / "runs/x").model.seg_token_id
        == load_sa2va(tmp_path / "runs/x/teachers/sa2va").seg_token_id
    )
    with pytest.raises(ModelError, match=r"teachers/sa2va/config.json: model_type is 'deixis_sa2va'"):
        load_any_detector(tmp_path / "runs/x")


def test_an_adapter_on_an_adapter(base: Path, tmp_path: Path) -> None:
    first = write_adapter(base, tmp_path / "runs/one/teachers/grounding_dino_lora", 1)
    second = write_adapter(first, tmp_path / "second", 2, named=str(tmp_path / "runs/one"))
    found, before = weights(second), weights(first)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in found.items())
    assert_equal(weights(first), before)


@pytest.fixture
def hub(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """What the hub has, by id: a detector, and adapters on it and on one another."""
    there = {"me/base": base}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(there[name]))
    there["me/adapter"] = write_adapter(base, tmp_path / "adapter", 1, named="me/base")
    there["me/second"] = write_adapter(there["me/adapter"], tmp_path / "second", 2, named="me/adapter")
    write_record(there["me/adapter"], ModelRecord("detector", names=("cat",), wordings={"cat": ["cat", "kitten"]}))
    return there


def test_a_hub_id_stands_for_all_that_its_folder_has(hub: dict[str, Path]) -> None:
    for name in ("me/base", "me/second"):
        found, local = load_any_detector(name), load_any_detector(hub[name])
        assert_equal(found.model.state_dict(), local.model.state_dict())
        assert (found.source, found.record) == (name, local.record)
        assert stored_record(name) == stored_record(hub[name])
    assert found.record.names == ("cat",), "an adapter without a record has that of its base"
    assert stored_record("me/adapter").names == ("cat",)


def test_the_base_of_an_adapter_on_the_hub_is_missing(hub: dict[str, Path]) -> None:
    del hub["me/base"]
    with pytest.raises(
        ModelError, match=r"adapter_config\.json: base_model_name_or_path: me/base: no such folder, and"
    ):
        load_any_detector("me/second")
    assert stored_record("me/base") == ModelRecord(), "the error is that of loading it"


def test_adapters_in_a_circle(base: Path, tmp_path: Path) -> None:
    first = write_adapter(base, tmp_path / "first", 1)
    second = write_adapter(base, tmp_path / "second", 1, named=str(first))
    values = json.loads((first / "adapter_config.json").read_text())
    for name in (first, second):
        (first / "adapter_config.json").write_text(json.dumps(values | {"base_model_name_or_path": str(name)}))
        with pytest.raises(ModelError, match="name each other as base"):
            load_any_detector(second)


def test_the_run_names_the_teacher_in_an_adapter(base: Path, tmp_path: Path) -> None:
    """What is written does not depend on a run's folder, which another run may replace."""
    from deixis.recipes.detect.model import save_trained

    shutil.copytree(base, tmp_path / "runs/x/teachers/grounding_dino")
    bundle = load_grounding_dino(base)
    add_lora(bundle.model, rank=2)
    save_trained(bundle, tmp_path / "adapter", adapter_of=str(tmp_path / "runs/x"))
    saved = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(tmp_path / "runs/x/teachers/grounding_dino")
