"""Learned scales of the class scores (MMDetection's `log_scale`): read, written back, folded for other layouts."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_layouts import to_mmdetection
from small_detectors import FLAVOURS, IDS, all_outputs, bert_tokenizer, images, perturb, prompts, small_config
from torch import Tensor
from transformers import BertConfig

from deixis.errors import ModelError
from deixis.models.grounding_dino import GroundingDino, load_grounding_dino, save_grounding_dino
from deixis.models.grounding_dino.weights.convert import build_bundle, foreign_tensors, read_checkpoint, save_checkpoint
from deixis.models.grounding_dino.weights.logit_scale import fold_scales
from deixis.models.grounding_dino.weights.transformers_layout import Ties, file_name
from deixis.options.model_convert import ModelConvertOptions
from deixis.recipes.model.tools import convert_model

TEXT = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=96, vocab_size=30522)
LAYERS = 3
SCALES = [0.4, -0.7, 0.15, -1.3]
"""log_scale of the decoder layers and, last, of the encoder."""
INPUTS = images((96, 64), (70, 90)) | prompts(*IDS)


def plain_model(flavour: str) -> GroundingDino:
    """The detector without scales."""
    torch.manual_seed(0)
    config = small_config(flavour, text_config=TEXT, decoder_layers=LAYERS, decoder_bbox_embed_share=False)
    model = GroundingDino(config).eval()
    perturb(model)
    return model


def checkpoint(flavour: str, scales: list[float] = SCALES) -> dict[str, Tensor]:
    """The same with scales, as MMDetection's file."""
    state = {file_name(n, Ties(False, False)): t for n, t in plain_model(flavour).state_dict().items()}
    tensors = to_mmdetection(state, maps=2, layers=LAYERS)
    return tensors | {f"bbox_head.cls_branches.{i}.log_scale": torch.tensor([scale]) for i, scale in enumerate(scales)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    bert_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(params=FLAVOURS)
def read(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: Path) -> Any:
    torch.save({"state_dict": checkpoint(request.param)}, tmp_path / "scaled.pth")
    return build_bundle(read_checkpoint(tmp_path / "scaled.pth"), tokenizer, "scaled.pth")


def outputs(model: Any) -> list[dict[str, Tensor]]:
    """Of every layer, in double precision; logits of real tokens only."""
    inputs = {**INPUTS, "pixel_values": INPUTS["pixel_values"].double()}
    with torch.no_grad():
        found = copy.deepcopy(model).double().eval()(**inputs)
    real = found["text_token_mask"][:, None].expand_as(found["pred_logits"])
    return [{"logits": o["pred_logits"][real], "boxes": o["pred_boxes"]} for o in all_outputs(found)]


def assert_same(found: list[dict[str, Tensor]], wanted: list[dict[str, Tensor]], tolerance: float) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], atol=tolerance, rtol=tolerance)


def test_each_layer_has_its_own_scale(read: Any) -> None:
    """MMDetection's formula, from the same detector without scales."""
    flavour = read.model.config.model_type
    plain = plain_model(flavour)
    root = math.sqrt(64) if flavour == "mm-grounding-dino" else 1.0
    last, *others = SCALES[LAYERS - 1], *SCALES[: LAYERS - 1], SCALES[LAYERS]
    for ours, theirs, scale, head in zip(
        outputs(read.model),
        outputs(plain),
        [last, *others],
        [plain.class_embed[-1], *plain.class_embed[:-1], plain.model.encoder_output_class_embed],
        strict=True,
    ):
        bias = head.bias.item() if flavour == "mm-grounding-dino" else 0.0
        wanted = (theirs["logits"] - bias) * root * math.exp(torch.tensor(scale)) + bias
        torch.testing.assert_close(ours["logits"], wanted, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], atol=1e-12, rtol=0)


def test_written_back_as_it_was(read: Any) -> None:
    back = foreign_tensors(read.model, "mmdetection")
    wanted = checkpoint(read.model.config.model_type)
    for name, tensor in back.items():
        assert torch.equal(tensor, wanted[name]), name
    assert sum(name.endswith(".log_scale") for name in back) == LAYERS + 1


def test_a_folder_is_the_same_detector_in_every_layer(read: Any, tmp_path: Path) -> None:
    save_grounding_dino(read, tmp_path / "folder")
    again = load_grounding_dino(tmp_path / "folder")
    assert_same(outputs(again.model), outputs(read.model), 2e-6)  # the weights are rounded to 32 bits once more
    save_grounding_dino(again, tmp_path / "twice")
    for (name, tensor), other in zip(
        again.model.state_dict().items(),
        load_grounding_dino(tmp_path / "twice").model.state_dict().values(),
        strict=True,
    ):
        torch.testing.assert_close(other, tensor, atol=1e-7, rtol=1e-6, msg=name)


def test_folding_is_exact(read: Any) -> None:
    model = copy.deepcopy(read.model).double()
    names = {file_name(name, Ties(False, False)): name for name in model.state_dict()}
    folded = fold_scales({file: model.state_dict()[name] for file, name in names.items()}, model.config)
    changed = copy.deepcopy(model)
    changed.load_state_dict({names[file]: tensor for file, tensor in folded.items()})
    assert not torch.equal(changed.model.enc_output_norm.weight, model.model.enc_output_norm.weight)
    assert_same(outputs(changed), outputs(model), 1e-7)  # the scales themselves have 32 bits


def test_transformers_detects_the_same(read: Any, tmp_path: Path) -> None:
    save_grounding_dino(read, tmp_path / "folder")
    flavour = read.model.config.model_type
    theirs, report = FLAVOURS[flavour][1].from_pretrained(tmp_path / "folder", output_loading_info=True)
    assert not report["missing_keys"]
    assert all(name.endswith(".log_scale") for name in report["unexpected_keys"])
    masks = {name: INPUTS[name].long() for name in ("pixel_mask", "attention_mask")}
    with torch.no_grad():
        wanted = theirs.eval()(**{**INPUTS, **masks})
        ours = read.model(**INPUTS)
    torch.testing.assert_close(wanted.logits, ours["pred_logits"], atol=5e-4, rtol=0)
    torch.testing.assert_close(wanted.pred_boxes, ours["pred_boxes"], atol=2e-5, rtol=0)


def test_a_folder_goes_back_to_mmdetection(read: Any, tmp_path: Path, tokenizer: Path) -> None:
    save_grounding_dino(read, tmp_path / "folder")
    save_checkpoint(load_grounding_dino(tmp_path / "folder"), tmp_path / "back.pth", "mmdetection")
    again = build_bundle(read_checkpoint(tmp_path / "back.pth"), tokenizer, "back.pth")
    assert_same(outputs(again.model), outputs(read.model), 2e-6)


def test_ideas_layout_detects_the_same(tmp_path: Path, tokenizer: Path) -> None:
    torch.save({"state_dict": checkpoint("grounding-dino")}, tmp_path / "scaled.pth")
    bundle = build_bundle(read_checkpoint(tmp_path / "scaled.pth"), tokenizer, "scaled.pth")
    save_checkpoint(bundle, tmp_path / "idea.pth", "idea")
    again = build_bundle(read_checkpoint(tmp_path / "idea.pth"), tokenizer, "idea.pth")
    found, wanted = outputs(again.model), outputs(bundle.model)
    assert_same([found[0], found[-1]], [wanted[0], wanted[-1]], 2e-6)  # the last layer and the proposals


def test_the_scales_learn(read: Any) -> None:
    model = read.model.train()
    found = model(**INPUTS)
    real = found["text_token_mask"][:, None].expand_as(found["pred_logits"])
    torch.stack([layer["pred_logits"][real].square().mean() for layer in all_outputs(found)]).sum().backward()
    for head in (*model.class_embed, model.model.encoder_output_class_embed):
        assert head.log_scale.grad.abs() > 0


def test_a_file_with_some_of_them_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": checkpoint("grounding-dino", SCALES[:2])}, tmp_path / "some.pth")
    with pytest.raises(ModelError, match=r"missing bbox_head\.cls_branches\.2\.log_scale"):
        read_checkpoint(tmp_path / "some.pth")


def test_the_command_says_so(tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": checkpoint("grounding-dino")}, tmp_path / "scaled.pth")
    convert_model(
        ModelConvertOptions(model=str(tmp_path / "scaled.pth"), output=tmp_path / "folder", tokenizer=str(tokenizer))
    )
    assert "learned for each layer (log_scale)" in " ".join(capsys.readouterr().out.split())
