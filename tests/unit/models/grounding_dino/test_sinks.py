"""Attention sinks: what they change, what they must not, and how they are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from small_detectors import bert_tokenizer, perturb, small_config

from deixis.data.detect.prompts import build_prompt
from deixis.errors import ModelError, OptionError
from deixis.inference.detect.detector import Detector
from deixis.models.checkpoints import (
    DetectorBundle,
    load_any_detector,
    make_sinks,
    save_detector,
    with_sinks,
    write_sinks,
)
from deixis.models.grounding_dino import init_bundle
from deixis.models.onnx.export import graphs

NAMES = ("red square", "blue circle", "cat")


@pytest.fixture(scope="module")
def bundle() -> DetectorBundle:
    torch.manual_seed(0)
    made = init_bundle(small_config("mm-grounding-dino"), bert_tokenizer(), (64, 96))
    perturb(made.model.eval())
    return made


def outputs(bundle: DetectorBundle, sinks: torch.Tensor | None) -> dict[str, torch.Tensor]:
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    pixels = torch.randn(1, 3, 64, 80, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([prompt.input_ids])
    with torch.no_grad():
        context = with_sinks(bundle.model.encode_text(ids, ids > 0), sinks)
        pyramid = bundle.model.encode_image(pixels, torch.ones(1, 64, 80, dtype=torch.bool))
        return bundle.model.ground(pyramid, context)


@pytest.mark.parametrize("kind", ["brackets", "mean", "random"])
def test_kinds_are_finite_equal_vectors_of_the_features_size(bundle: DetectorBundle, kind: str) -> None:
    sinks = make_sinks(bundle, 8, kind, NAMES)
    assert sinks.shape == (8, 64)
    assert (sinks == sinks[0]).all()
    assert sinks.isfinite().all()
    assert torch.equal(sinks, make_sinks(bundle, 8, kind, NAMES))
    assert not torch.equal(sinks, make_sinks(bundle, 8, "brackets" if kind != "brackets" else "mean", NAMES))


def test_sinks_are_phrases_of_their_own(bundle: DetectorBundle) -> None:
    ids = torch.tensor([build_prompt(NAMES, bundle.prompt_tokenizer).input_ids])
    context = bundle.model.encode_text(ids, ids > 0)
    found = with_sinks(context, make_sinks(bundle, 3, "brackets"))
    length = ids.shape[1]
    assert found.tokens.shape[1] == length + 3
    assert found.mask[:, length:].all()
    assert torch.equal(found.phrase_mask[..., :length, :length], context.phrase_mask)
    assert torch.equal(found.phrase_mask[0, 0, length:], torch.eye(length + 3, dtype=torch.bool)[length:])
    assert not found.phrase_mask[..., :length, length:].any()
    assert with_sinks(context, None) is context


def test_names_see_sinks_and_are_never_found_by_them(bundle: DetectorBundle) -> None:
    """Image tokens attend to them, so scores change; a class has none of their tokens."""
    plain, changed = outputs(bundle, None), outputs(bundle, make_sinks(bundle, 8, "random", NAMES))
    tokens = int(plain["text_token_mask"].sum())
    assert not torch.allclose(plain["pred_logits"][..., :tokens], changed["pred_logits"][..., :tokens])
    assert changed["pred_logits"][..., tokens : tokens + 8].isfinite().all()
    assert (changed["pred_logits"][..., tokens + 8 :] == -torch.inf).all()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    (found,) = Detector(bundle, sinks=8).predict([pixels], NAMES, threshold=0)
    assert set(found.labels) <= set(NAMES)
    (without,) = Detector(bundle).predict([pixels], NAMES, threshold=0)
    assert found.scores.tolist() != without.scores.tolist()


def test_names_and_sinks_share_the_length_of_a_prompt(bundle: DetectorBundle) -> None:
    detector = Detector(bundle, sinks=64)
    many = [f"thing {number}" for number in range(120)]
    prompts, _ = detector._build_prompts(tuple(many))
    assert max(len(prompt.input_ids) for prompt in prompts) <= 256 - 64
    with pytest.raises(OptionError, match="sinks must be from 0 to 64"):
        Detector(bundle, sinks=65)


@pytest.mark.parametrize("hub_id", ["", "somebody/detector"])
def test_a_folder_keeps_its_sinks(
    hub_id: str, bundle: DetectorBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path / "model"))
    sinks = make_sinks(bundle, 4, "random", NAMES)
    save_detector(replace(bundle, sinks=sinks), tmp_path / "model")
    loaded = load_any_detector(hub_id or tmp_path / "model")
    assert torch.equal(loaded.sinks, sinks)
    assert loaded.source == (hub_id or str(tmp_path / "model"))
    assert torch.equal(Detector(loaded).sinks, sinks)
    assert Detector(loaded, sinks=0).sinks is None
    save_detector(bundle, tmp_path / "model")
    assert load_any_detector(tmp_path / "model").sinks is None


@pytest.mark.parametrize(
    "tensors",
    [{}, {"sinks": torch.zeros(3, 5)}, {"sinks": torch.zeros(65, 64)}, {"sinks": torch.full((2, 64), torch.nan)}],
)
def test_a_damaged_file_of_sinks_is_named(bundle: DetectorBundle, tmp_path: Path, tensors) -> None:
    save_detector(bundle, tmp_path / "model")
    save_file(tensors, tmp_path / "model/sinks.safetensors")
    with pytest.raises(ModelError, match=r"sinks\.safetensors: expected 1 to 64 vectors of 64 finite numbers"):
        load_any_detector(tmp_path / "model")
    (tmp_path / "model/sinks.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match=r"sinks\.safetensors: cannot be read \(.*\); remove the file"):
        load_any_detector(tmp_path / "model")
    write_sinks(tmp_path / "model", None)
    assert load_any_detector(tmp_path / "model").sinks is None


def test_sinks_that_cannot_be_written_leave_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"file/sinks\.safetensors: cannot be written"):
        write_sinks(tmp_path / "file", torch.ones(1, 64))
    write_sinks(tmp_path / "model", torch.ones(1, 64))
    (tmp_path / "plain").write_text("")
    file = tmp_path / "model/sinks.safetensors"
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode, "safetensors writes for the owner alone"
    before = file.read_bytes()

    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("no space left on device")

    monkeypatch.setattr("deixis.models.grounding_dino.sinks.save_file", full)
    with pytest.raises(ModelError, match=r"model/sinks\.safetensors: cannot be written \(no space left"):
        write_sinks(tmp_path / "model", torch.zeros(2, 64))
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_the_exported_graphs_have_them(bundle: DetectorBundle) -> None:
    sinks = make_sinks(bundle, 8, "random", NAMES)
    prompt = build_prompt(NAMES, bundle.prompt_tokenizer)
    image, text = graphs(replace(bundle, sinks=sinks), prompt, rows=(0, 0, 1))
    pixels = torch.randn(1, 3, 64, 80, generator=torch.Generator().manual_seed(1))
    logits, boxes, scores = text(image(pixels))
    expected = outputs(bundle, sinks)
    torch.testing.assert_close(logits, expected["pred_logits"][..., : logits.shape[-1]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(boxes, expected["pred_boxes"], atol=1e-5, rtol=1e-4)
    each = logits.sigmoid() @ torch.from_numpy(prompt.positive_map).T
    torch.testing.assert_close(scores, torch.stack([each[..., :2].amax(-1), each[..., 2]], -1))
