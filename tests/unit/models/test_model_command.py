"""`deixis model`: what the commands print, write and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from local_hub import use_local_hub
from small_detectors import bert_tokenizer, perturb, small_config
from transformers import BertConfig

from deixis.cli.main import main
from deixis.models.adapters import add_lora, merge, save_adapter
from deixis.models.grounding_dino import GroundingDinoBundle, init_bundle, load_grounding_dino, save_grounding_dino
from deixis.models.grounding_dino.weights.convert import save_checkpoint

TEXT = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=96, vocab_size=30522)


def bundle_of(seed: int) -> GroundingDinoBundle:
    torch.manual_seed(0)
    bundle = init_bundle(small_config("mm-grounding-dino", text_config=TEXT), bert_tokenizer(), (96, 160))
    perturb(bundle.model.eval(), seed)
    return bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "base"
    save_grounding_dino(bundle_of(1), path)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["model", *map(str, words)])
    said = capsys.readouterr()
    return int(caught.value.code or 0), said.out, said.err


@pytest.mark.parametrize("command", ["convert", "info", "merge", "export"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"deixis model {command} " in out.partition("Examples:")[2]


def test_convert_info_and_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "convert", "--model", folder, "--to", "mmdetection", "--output", tmp_path / "w.pth")
    assert (code, out) == (0, f"wrote {tmp_path / 'w.pth'}\n")

    code, out, _ = run(capsys, "info", "--model", tmp_path / "w.pth")
    assert code == 0
    for fact in (
        "layout of mmdetection, all",
        "MM-Grounding-DINO or LLMDet: class scores are scaled dot products with a bias",
        "Swin 32 wide, 2-2-2 deep, window 7; maps of stage2, stage3",
        "BERT of 2 layers, 64 wide, 30,522 tokens",
        "64 wide, 2 encoder and 2 decoder layers, 20 queries, 3 levels",
        "tokenizer    none",
    ):
        assert fact in out

    to = ("convert", "--model", tmp_path / "w.pth", "--tokenizer", folder, "--image-size", 96, 160)
    code, out, _ = run(capsys, *to, "--output", tmp_path / "again", "--dry-run")
    assert code == 0
    assert not (tmp_path / "again").exists()
    code, out, _ = run(capsys, *to, "--output", tmp_path / "again")
    assert code == 0
    again, wanted = load_grounding_dino(tmp_path / "again"), load_grounding_dino(folder)
    assert again.image_size == (96, 160)
    state = again.model.state_dict()
    assert all(torch.equal(state[n], t) for n, t in wanted.model.state_dict().items() if "swin.layernorm" not in n)

    code, _, err = run(capsys, *to, "--output", tmp_path / "again")
    assert (code, err.count("\n")) == (2, 1)
    assert "exists" in err


def test_left_out_tensors_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(bundle_of(1), tmp_path / "w.pth", "mmdetection")
    content = torch.load(tmp_path / "w.pth")
    content["state_dict"]["dn_query_generator.label_embedding.weight"] = torch.zeros(2)
    torch.save(content, tmp_path / "w.pth")
    _, out, _ = run(capsys, "info", tmp_path / "w.pth")
    assert "left out     1 tensors:" in out
    assert "for denoising queries in training: dn_query_generator.label_embedding.weight" in out

    content["state_dict"]["level_embedding"] = content["state_dict"].pop("level_embed")
    torch.save(content, tmp_path / "w.pth")
    code, _, err = run(capsys, "info", tmp_path / "w.pth")
    assert (code, err.count("\n")) == (2, 1)
    assert "missing level_embed" in err
    assert "unexpected level_embedding" in err


def test_info_of_the_builtin_model(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "info")
    assert code == 0
    for word in ("backbone ", "text ", "encoder ", "decoder ", "heads ", "tokenizer", "image size"):
        assert word in out
    bundle = load_grounding_dino(Path(str(__import__("deixis").__file__)).parent / "builtin" / "detector")
    assert f"builtin: {sum(p.numel() for p in bundle.model.parameters()):,} parameters" in out
    assert out.index("detector\nbuiltin: ") < out.index("segmenter\nbuiltin: ")


@pytest.mark.parametrize("hub_id", ["", "me/adapter"])
def test_merge_an_adapter_and_go_half_way(
    hub_id: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_local_hub(monkeypatch, tmp_path / "cache", {"me/adapter": tmp_path / "adapter"})
    adapter = hub_id or tmp_path / "adapter"
    tuned = bundle_of(1)
    add_lora(tuned.model, rank=2)
    perturb(torch.nn.ParameterList(p for p in tuned.model.parameters() if p.requires_grad))
    save_adapter(tuned.model, tmp_path / "adapter", base=str(folder))
    merge(tuned.model)
    whole, base = tuned.model.state_dict(), load_grounding_dino(folder).model.state_dict()

    _, out, _ = run(capsys, "info", "--model", adapter)
    assert f"LoRA of rank 2, alpha 32, on {folder}" in out
    code, _, _ = run(capsys, "merge", "--model", adapter, "--output", tmp_path / "whole")
    assert code == 0
    found = load_grounding_dino(tmp_path / "whole").model.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in found.items())

    half = ("merge", "--model", adapter, "--weight", 0.5, "--output", tmp_path / "half")
    assert run(capsys, *half, "--dry-run")[0] == 0
    assert not (tmp_path / "half").exists()
    code, out, _ = run(capsys, *half)
    assert out.startswith(f"0.5 of the way from {folder} to {adapter}\n")
    found = load_grounding_dino(tmp_path / "half").model.state_dict()
    name = "model.decoder.layers.1.fc1.weight"
    assert not torch.equal(base[name], whole[name])
    torch.testing.assert_close(found[name], (base[name] + whole[name]) / 2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("convert",), "--model"),
        (("convert", "--model", "absent.pth"), "absent.pth: no such file"),
        (("convert", "--model", "builtin", "--output", "new"), "--to idea, mmdetection or sa2va"),
        (("convert", "--model", "a.pth", "--image-size", 9, 8), "--image-size"),
        (("info", "--model", "nowhere"), "nowhere: no such folder"),
        (("merge",), "--model"),
        (("merge", "--model", 5000 * "x"), "x: no such folder"),
        (("info", "--model", 5000 * "x"), "a path of 5,000 characters is too long"),
        (("convert", "--model", 5000 * "x" + ".pth"), "characters is too long"),
        (("merge", "--model", "builtin", "--weight", 2), "--weight"),
        (("merge", "--model", "builtin", "--weight", 0.5, "--output", "new"), "--base"),
        (("export",), "--names"),
        (("export", "--names", "cat", "--check-sizes", 1, 2), "--check-sizes was removed"),
    ],
)
def test_errors_are_one_line(words: tuple[object, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err


def test_a_checkpoint_file_is_no_model_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.pth").write_bytes(b"")
    code, _, err = run(capsys, "merge", "--model", tmp_path / "w.pth", "--output", tmp_path / "new")
    assert code == 2
    assert f"deixis model convert --model {tmp_path / 'w.pth'}" in err


def test_export_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.onnx"
    code, out, _ = run(capsys, "export", "--names", "cat", "red star", "--output", path, "--dry-run")
    assert (code, path.exists()) == (0, False)
    assert "cat. red star." in out
