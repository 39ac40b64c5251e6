"""What trained of a segmenter, apart from its base: PEFT reads it, and merged it is the model that was saved whole."""

from __future__ import annotations

import shutil

import pytest
import torch
from local_hub import use_local_hub
from peft import PeftModel
from safetensors import SafetensorError
from tiny_refer_runs import write_tiny_segmenter

from deixis.cli.main import main
from deixis.errors import ModelError
from deixis.models.builtin import model_of_run
from deixis.models.sa2va import load_sa2va, part_of
from deixis.models.segmenter_adapter import save_segmenter_adapter
from deixis.options.groups import Lora
from deixis.options.refer_train import ReferParts
from deixis.recipes.refer.model import adapter_base, prepare_segmenter, save_segmenter, write_teacher


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(base, teachers) of a run of which every trained tensor has changed."""
    folder = tmp_path_factory.mktemp("adapter")
    base = write_tiny_segmenter(folder / "base")
    parts, lora = ReferParts(model=str(base)), Lora(lora=True, lora_r=4)
    bundle = prepare_segmenter(parts, lora, "deixis", seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in bundle.model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    bundle = bundle.with_presence_threshold(0.3)
    save_segmenter(bundle, folder / "run/checkpoints/best", adapter_of=adapter_base(parts, lora))
    write_teacher(parts, folder / "run/checkpoints/best", folder / "run/teachers/sa2va")
    return base, folder / "run/teachers"


def merge(adapter, output, code):
    with pytest.raises(SystemExit) as stopped:
        main(["model", "merge", "--model", str(adapter), "--output", str(output)])
    assert stopped.value.code == code


@pytest.mark.parametrize("named", ["folder", "run", "hub id"])
def test_merged_it_is_the_whole_model(named, run, tmp_path, monkeypatch):
    _, teachers = run
    adapter = teachers / "sa2va_lora"
    use_local_hub(monkeypatch, tmp_path / "cache", {"me/adapter": adapter})
    if named == "run":
        shutil.copytree(adapter, tmp_path / "run/teachers/sa2va_lora")
    places = {"folder": adapter, "run": tmp_path / "run", "hub id": "me/adapter"}
    merge(places[named], tmp_path / "merged", 0)
    merged, whole = load_sa2va(tmp_path / "merged"), load_sa2va(teachers / "sa2va")
    theirs = whole.model.state_dict()
    assert merged.model.state_dict().keys() == theirs.keys()
    for name, tensor in merged.model.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], msg=name)
    assert (merged.behaviour, merged.presence_threshold) == (whole.behaviour, 0.3)
    assert "refer predict" in (tmp_path / "merged/README.md").read_text()


def test_peft_loads_it_onto_the_vision_language_model(run):
    base, teachers = run
    vlm = load_sa2va(base).model.vlm
    before = {name: tensor.clone() for name, tensor in vlm.state_dict().items()}
    merged = PeftModel.from_pretrained(vlm, str(teachers / "sa2va_lora")).merge_and_unload()
    whole = load_sa2va(teachers / "sa2va").model.vlm.state_dict()
    names = [name for name in whole if name.endswith("_proj.weight") and ".language_model.layers." in name]
    assert len(names) >= 7
    for name in names:
        torch.testing.assert_close(merged.state_dict()[name], whole[name], msg=name)
        assert not torch.equal(whole[name], before[name])


def test_a_failed_write_leaves_the_old_adapter(run, tmp_path, monkeypatch):
    bundle = prepare_segmenter(ReferParts(model=str(run[0])), Lora(lora=True, lora_r=2), "deixis", seed=0)
    save_segmenter_adapter(bundle, tmp_path / "adapter", "base")
    before = {file.name: file.read_bytes() for file in (tmp_path / "adapter").iterdir()}

    def full(*arguments, **named):
        raise SafetensorError("no space left on device")

    monkeypatch.setattr("deixis.models.segmenter_adapter.save_file", full)
    with pytest.raises(ModelError, match=r"adapter: cannot be written .*no space left"):
        save_segmenter_adapter(bundle, tmp_path / "adapter", "another")
    assert {file.name: file.read_bytes() for file in (tmp_path / "adapter").iterdir()} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "adapter"]
    with pytest.raises(ModelError, match="adapter: cannot be written"):
        save_segmenter_adapter(bundle, tmp_path / "new/adapter", "another")
    assert not (tmp_path / "new/adapter").exists()


def test_the_folder_of_the_run_still_names_the_whole_model(run):
    _, teachers = run
    assert model_of_run(teachers.parent) == str(teachers / "sa2va")
    assert not (teachers / "sa2va/adapter").exists()
    assert "PeftModel.from_pretrained" in (teachers / "sa2va_lora/README.md").read_text()


def test_an_adapter_of_another_base_is_one_line(run, tmp_path, capsys):
    _, teachers = run
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in (teachers / "sa2va_lora").iterdir():
        (adapter / file.name).write_bytes(file.read_bytes())
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace(str(run[0]), "builtin"))
    merge(adapter, tmp_path / "merged", 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert str(adapter) in lines[0]
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        ((), {"language", "embeddings", "projector", "text_hidden_fcs", "mask_decoder"}),
        (("mask_decoder", "embeddings"), {"language", "projector", "text_hidden_fcs"}),
        (("language",), {"embeddings", "projector", "text_hidden_fcs", "mask_decoder"}),
    ],
)
def test_freeze_names_parts_as_of_a_detector(run, freeze, trained):
    parts, lora = ReferParts(model=str(run[0]), freeze=freeze), Lora(lora=True, lora_r=4)
    model = prepare_segmenter(parts, lora, "deixis", seed=0).model
    assert {part_of(name) for name, tensor in model.named_parameters() if tensor.requires_grad} == trained
    assert bool(adapter_base(parts, lora)) == ("language" in trained)
