"""Reading and writing detector folders: everything fits or nothing is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_detectors import IDS, bert_tokenizer, images, perturb, prompts, small_config
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.adapters import add_lora
from deixis.models.grounding_dino import GroundingDinoBundle, init_bundle, load_grounding_dino, save_grounding_dino
from deixis.models.grounding_dino.weights.transformers_layout import Ties, file_name


@pytest.fixture(scope="module")
def bundle() -> GroundingDinoBundle:
    torch.manual_seed(0)
    bundle = init_bundle(small_config(), bert_tokenizer(), (96, 160), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    perturb(bundle.model)
    return bundle


@pytest.fixture
def folder(bundle: GroundingDinoBundle, tmp_path: Path) -> Path:
    save_grounding_dino(bundle, tmp_path / "model")
    return tmp_path / "model"


def change_weights(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_round_trip(bundle: GroundingDinoBundle, folder: Path) -> None:
    again = load_grounding_dino(str(folder))
    assert not again.model.training
    assert (again.image_size, again.mean, again.std) == ((96, 160), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert again.source == str(folder)
    wanted = bundle.model.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.model.state_dict().items())


def test_every_missing_and_unexpected_tensor_is_named(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors["model.enc_output.weight"], tensors["model.text_projection.bias"]
        tensors["model.stranger"] = torch.zeros(1)
        tensors["model.level_embed"] = torch.zeros(4, 64)

    change_weights(folder, change)
    with pytest.raises(ModelError) as caught:
        load_grounding_dino(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "4 faults" in message
    for fault in (
        "missing model.enc_output.weight",
        "missing model.text_projection.bias",
        "unexpected model.stranger",
        "model.level_embed has shape (4, 64), config.json gives (3, 64)",
    ):
        assert fault in message


def test_tied_tensors_must_agree(folder: Path) -> None:
    head = "layers.0.weight"

    def repeat(tensors: dict[str, Tensor]) -> None:
        tensors[f"model.decoder.bbox_embed.1.{head}"] = tensors[f"bbox_embed.0.{head}"].clone()

    change_weights(folder, repeat)
    load_grounding_dino(folder)  # older files repeat tied tensors
    change_weights(folder, lambda tensors: tensors[f"model.decoder.bbox_embed.1.{head}"].add_(1))
    with pytest.raises(ModelError, match=r"model.decoder.bbox_embed.1.layers.0.weight differs from bbox_embed.0"):
        load_grounding_dino(folder)


def test_derived_tensors_of_older_files_are_passed_over(folder: Path) -> None:
    prefix = "model.backbone.conv_encoder.model."

    def change(tensors: dict[str, Tensor]) -> None:
        tensors[prefix + "encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(49, 49)
        tensors["model.text_backbone.embeddings.position_ids"] = torch.zeros(1, 512)
        for name in [name for name in tensors if "swin.layernorm" in name]:
            del tensors[name]

    change_weights(folder, change)
    load_grounding_dino(folder)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("model.decoder.bbox_embed.3.layers.0.bias", "bbox_embed.0.layers.0.bias"),
        ("class_embed.5.bias", "class_embed.5.bias"),
        (
            "model.backbone.conv_encoder.model.swin.encoder.layers.0.blocks.1.attention.q_proj.weight",
            "model.backbone.conv_encoder.model.encoder.layers.0.blocks.1.attention.self.query.weight",
        ),
        (
            "model.backbone.conv_encoder.model.encoder.layers.0.blocks.1.output.dense.weight",
            "model.backbone.conv_encoder.model.encoder.layers.0.blocks.1.output.dense.weight",
        ),
        (
            "model.text_backbone.encoder.layer.0.output.dense.bias",
            "model.text_backbone.encoder.layer.0.output.dense.bias",
        ),
        ("model.encoder.layers.0.deformable_layer.fc1.weight", "model.encoder.layers.0.deformable_layer.fc1.weight"),
    ],
)
def test_file_names(given: str, wanted: str) -> None:
    assert file_name(given, Ties(boxes=True, classes=False)) == wanted


def test_config_of_another_model(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"model_type": "detr"}))
    with pytest.raises(ModelError, match=r"config.json: model_type is 'detr', expected one of \['grounding-dino'"):
        load_grounding_dino(folder)


@pytest.mark.parametrize(
    ("name", "numbers", "expected"),
    [
        ("image_std", [0, 1, 1], "three numbers above 0"),
        ("image_std", [1, 1], "three numbers above 0"),
        ("image_mean", [0, "1", 1], "three numbers from -1000 to 1000"),
    ],
)
def test_pixel_statistics_of_the_wrong_kind(folder: Path, name: str, numbers: list[Any], expected: str) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: numbers}))
    with pytest.raises(ModelError, match=rf"preprocessor_config\.json: {name} is .*, expected {expected}"):
        load_grounding_dino(folder)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"model_type": "grounding-dino", "num_queries": "many"}'])
def test_damaged_config(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json: ") as caught:
        load_grounding_dino(folder)
    assert "\n" not in str(caught.value)


def test_damaged_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
        load_grounding_dino(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"])
def test_missing_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=str(folder)):
        load_grounding_dino(folder)


def test_missing_folder_and_missing_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load_grounding_dino(tmp_path / "absent")

    def offline(*args: Any, **kwargs: Any) -> str:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match=r"IDEA-Research/absent: .*ConnectionError.*check the name") as caught:
        load_grounding_dino("IDEA-Research/absent")
    assert "\n" not in str(caught.value)


def test_hub_ids_are_read_from_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(folder))
    assert load_grounding_dino("somebody/detector").source == "somebody/detector"


def test_writing_over_a_model_keeps_other_files(bundle: GroundingDinoBundle, folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    save_grounding_dino(bundle, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert not [path for path in folder.parent.iterdir() if path != folder]
    load_grounding_dino(folder)


def test_unwritable_folder(bundle: GroundingDinoBundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        save_grounding_dino(bundle, tmp_path / "file" / "model")


def test_a_failed_write_leaves_the_old_model(
    bundle: GroundingDinoBundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("deixis.models.grounding_dino.weights.pretrained.save_file", full)
    with pytest.raises(ModelError, match="no space left"):
        save_grounding_dino(bundle, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not [path for path in folder.parent.iterdir() if path != folder]


def test_unmerged_adapters_are_not_saved_as_a_model(tmp_path: Path) -> None:
    bundle = init_bundle(small_config(), bert_tokenizer())
    add_lora(bundle.model, rank=2)
    with pytest.raises(ModelError, match="merge them"):
        save_grounding_dino(bundle, tmp_path / "model")


def test_newer_processor_file(folder: Path) -> None:
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    assert load_grounding_dino(folder).image_size == (96, 160)


def test_image_size_that_cannot_be(folder: Path) -> None:
    values = json.loads((folder / "preprocessor_config.json").read_text())
    for size in ({"height": 96, "width": 160}, {"shortest_edge": 200, "longest_edge": 100}):
        (folder / "preprocessor_config.json").write_text(json.dumps(values | {"size": size}))
        with pytest.raises(ModelError):
            load_grounding_dino(folder)


def test_normalise(bundle: GroundingDinoBundle) -> None:
    pixels = torch.full((1, 3, 2, 3), 255, dtype=torch.uint8)
    mask = torch.tensor([[[True, True, False], [True, True, False]]])
    values = bundle.normalise(pixels, mask)
    torch.testing.assert_close(values[0, :, 0, 0], torch.tensor([0.5 / 0.2, 0.6 / 0.3, 0.7 / 0.4]))
    assert (values[..., 2] == 0).all()
    black = bundle.normalise(torch.zeros_like(pixels), mask)
    torch.testing.assert_close(black[0, :, 1, 1], torch.tensor([-0.5 / 0.2, -0.4 / 0.3, -0.3 / 0.4]))
    assert (black[..., 2] == 0).all()


def test_normalise_is_the_formula_at_every_row(bundle: GroundingDinoBundle) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 3, 150, 70), dtype=torch.uint8, generator=generator)
    mask = torch.zeros(3, 150, 70, dtype=torch.bool)
    for row, (height, width) in enumerate([(150, 31), (65, 70), (1, 1)]):
        mask[row, :height, :width] = True
    mean, std = (torch.tensor(values)[:, None, None] for values in (bundle.mean, bundle.std))
    expected = ((pixels / 255 - mean) / std).masked_fill(~mask[:, None], 0)
    torch.testing.assert_close(bundle.normalise(pixels, mask), expected, rtol=1e-5, atol=1e-6)


def test_text_encoder_too_small_for_the_tokenizer() -> None:
    config = small_config()
    config.text_config.vocab_size = 1100
    with pytest.raises(ModelError, match="30522 tokens, the text encoder only 1100"):
        init_bundle(config, bert_tokenizer())


def test_loaded_model_predicts(folder: Path, bundle: GroundingDinoBundle) -> None:
    inputs = images((96, 64)) | prompts(IDS[0])
    again = load_grounding_dino(folder).model
    assert torch.equal(again(**inputs)["pred_boxes"], bundle.model.eval()(**inputs)["pred_boxes"])
