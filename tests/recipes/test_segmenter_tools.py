"""`deixis model info | convert` for segmenters, and the weights of `checkpoints/last` as a folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from local_hub import use_local_hub
from qwen_segmenters import QWENS, qwen_segmenter, write_released_qwen
from released_segmenters import released_bundle
from safetensors.torch import load_file
from small_segmenters import tiny_segmenter
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import train_arguments

from deixis.models.checkpoints import load_any_detector
from deixis.models.sa2va import load_sa2va, read_released, save_sa2va


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """As a run leaves it: InternVL on Qwen2, SAM 2 with its memory."""
    run = tmp_path_factory.mktemp("runs") / "x"
    save_sa2va(released_bundle("Qwen2ForCausalLM"), run / "teachers/sa2va")
    return run


def same(one, other) -> bool:
    mine, theirs = one.model.state_dict(), other.model.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_to_the_released_layout_and_back(deixis, segmenter, tmp_path):
    for source, to, output in (
        (segmenter, "sa2va", tmp_path / "released"),
        (tmp_path / "released", "transformers", tmp_path / "back"),
    ):
        code, out, err = deixis(["model", "convert", source, "--to", to, "--output", output])
        assert code == 0, err
        assert f"wrote {output}" in out
    assert same(read_released(tmp_path / "released"), load_sa2va(segmenter))
    assert same(load_sa2va(tmp_path / "back"), load_sa2va(segmenter))


def test_info_of_both_layouts(deixis, segmenter, tmp_path):
    deixis(["model", "convert", segmenter, "--to", "sa2va", "--output", tmp_path / "released"])
    for source, layout in ((segmenter, "deixis: two halves"), (tmp_path / "released", "released Sa2VA")):
        code, out, err = deixis(["model", "info", source])
        assert code == 0, err
        for fact in (f"layout       {layout}", "qwen2 of", "SAM 2        with its memory", "text_hidden_fcs"):
            assert fact in out


@pytest.mark.parametrize("kind", QWENS)
def test_a_released_qwen_is_described_and_goes_both_ways(deixis, kind, tmp_path):
    released, mine, back = (tmp_path / name for name in ("released", "mine", "back"))
    state = write_released_qwen(qwen_segmenter(kind), released)
    code, out, err = deixis(["model", "info", released])
    assert code == 0, err
    for fact in (f"vision       {kind}, images of 24 to 64 tokens", "layout       released Sa2VA", "3 layers, 32 wide"):
        assert fact in out
    for command in (
        ["--to", "transformers", "--output", mine],
        ["--to", "sa2va", "--like", released, "--output", back],
    ):
        code, out, err = deixis(["model", "convert", mine if "sa2va" in command else released, *command])
        assert code == 0, err
    assert "images of 24 to 64 tokens" in deixis(["model", "info", mine])[1]
    written = load_file(back / "model.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)
    assert (back / "config.json").read_text() == (released / "config.json").read_text()


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A released folder with code of its own."""
    folder = tmp_path_factory.mktemp("theirs") / "released"
    write_released_qwen(qwen_segmenter(QWENS[0]), folder)
    (folder / "modeling_theirs.py").write_text("# their code")
    return folder


@pytest.mark.parametrize("name", ["me/released", "RUN"])
def test_code_is_copied_from_a_model_by_its_name(deixis, released, name, tmp_path, monkeypatch):
    use_local_hub(monkeypatch, tmp_path / "cache", {"me/released": released})
    shutil.copytree(released, tmp_path / "mine/teachers/sa2va")
    like = tmp_path / "mine" if name == "RUN" else name
    command = ["model", "convert", released, "--to", "sa2va", "--output", tmp_path / "out", "--like", like]
    code, _, err = deixis(command)
    assert code == 0, err
    for file in ("modeling_theirs.py", "config.json"):
        assert (tmp_path / "out" / file).read_text() == (released / file).read_text()


@pytest.mark.parametrize(
    ("like", "told"),
    [
        ("absent", "absent: no such folder"),
        ("me/absent", "could not be downloaded"),
        ("empty", "config.json: "),
        ("mine", "no released Sa2VA"),
    ],
)
def test_what_nothing_can_be_copied_from_is_one_line(deixis, released, segmenter, like, told, tmp_path, monkeypatch):
    use_local_hub(monkeypatch, tmp_path / "cache", {})
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").symlink_to(segmenter / "teachers/sa2va")
    command = ["model", "convert", released, "--to", "sa2va", "--output", tmp_path / "out", "--like", like]
    code, _, err = deixis(command)
    assert (code, len(err.splitlines())) == (2, 1)
    assert told in err
    assert not (tmp_path / "out").exists()


def test_what_has_no_released_form_is_one_line(deixis, tmp_path):
    save_sa2va(tiny_segmenter(), tmp_path / "mine")  # SAM 2 without a memory
    for to, message in (("sa2va", "SAM 2 with its memory"), ("idea", "--to: .*is a segmenter")):
        code, _, err = deixis(["model", "convert", tmp_path / "mine", "--to", to, "--output", tmp_path / "out"])
        assert (code, len(err.splitlines())) == (2, 1)
        assert re.search(message, err), err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [(), ("--lora", "--lora-rank", "2")], ids=["whole", "lora"])
def test_averaged_weights_of_a_detector(deixis, tiny_model, tmp_path, more):
    averages = ("--ema-decay", "0.9", "--epochs", "1", "--no-report")
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, *averages, *more))
    assert code == 0, err
    last, output = tmp_path / "detector/checkpoints/last", tmp_path / "averaged"
    code, out, err = deixis(["model", "convert", last, "--output", output])
    assert code == 0, err
    assert "averaged weights" in out
    # After the only epoch the best weights are the averaged ones too.
    assert same(load_any_detector(str(output)), load_any_detector(str(tmp_path / "detector/checkpoints/best")))
    code, _, err = deixis(["model", "convert", last, "--output", tmp_path / "x.pth", "--to", "idea"])
    assert code == 2
    assert "--to" in err


@pytest.mark.slow
def test_weights_of_a_segmenter_without_averages(deixis, tmp_path):
    model = write_tiny_segmenter(tmp_path / "model")
    code, _, err = deixis(refer_arguments(model, tmp_path, "--epochs", "1", "--no-report"))
    assert code == 0, err
    run = tmp_path / "segmenter"
    code, out, err = deixis(["model", "convert", run / "checkpoints/last", "--output", tmp_path / "written"])
    assert code == 0, err
    assert "averages none" in out or "averaged weights" in out
    assert same(load_sa2va(tmp_path / "written"), load_sa2va(run / "checkpoints/best"))


def test_a_damaged_checkpoint_is_one_line(deixis, tiny_model, tmp_path):
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, "--epochs", "1", "--no-report"))
    assert code == 0, err
    last: Path = tmp_path / "detector/checkpoints/last"
    (last / "training.pt").write_bytes(b"half a file")
    code, _, err = deixis(["model", "convert", last, "--output", tmp_path / "out"])
    assert (code, len(err.splitlines())) == (2, 1)
    assert "checkpoints/last: damaged" in err
