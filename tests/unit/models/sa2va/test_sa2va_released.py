"""Released Sa2VA folders, made by renaming: read strictly, the same masks, written back the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from released_segmenters import released_bundle, write_released
from safetensors.torch import load_file, save_file
from small_segmenters import TURNS, batch_of, tiny_segmenter
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.model_configs import read_transformers_config
from deixis.models.sa2va import Sa2vaBundle, load_sa2va
from deixis.models.sa2va.families.internvl import vlm_config
from deixis.models.sa2va.weights.released import read_released, save_released
from deixis.models.sa2va.weights.sam_config import HIERAS, sam_config

LANGUAGES = ["Qwen2ForCausalLM", "InternLM2ForCausalLM"]


@torch.no_grad()
def assert_same_masks(one: Sa2vaBundle, other: Sa2vaBundle) -> None:
    outputs = other.model(*batch_of(other, TURNS, (1, 2, 1)))
    for name, tensor in one.model(*batch_of(one, TURNS, (1, 2, 1))).items():
        assert torch.equal(tensor, outputs[name]), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_renamed_weights_load_strictly_and_give_the_same_masks(language: str, tmp_path: Path) -> None:
    bundle = released_bundle(language)
    state = write_released(bundle, language, tmp_path / "released")
    again = load_sa2va(tmp_path / "released")
    assert_same_masks(bundle, again)
    assert again.behaviour == "sa2va"
    mine, theirs = again.model.state_dict(), bundle.model.state_dict()  # the memory, too
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    save_released(again, tmp_path / "written")
    written = load_file(tmp_path / "written" / "model.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)
    assert_same_masks(bundle, read_released(tmp_path / "written"))


def test_queries_keys_and_values_taken_in_order_are_caught() -> None:
    """Without de-interleaving, InternLM 2's attention would load, and be wrong."""
    from deixis.models.sa2va.families.family import Heads
    from deixis.models.sa2va.weights.layout import Place, _taken

    wqkv = torch.arange(2 * 4 * 8.0)[:, None]
    query = _taken([wqkv], Place("wqkv", "grouped", 0, ""), Heads(2, 2))
    assert query is not None
    assert query[:, 0].tolist() == [*range(16), *range(32, 48)]
    assert not torch.equal(query, wqkv[:32])


def changed(folder: Path, change: dict[str, Tensor | None]) -> None:
    file = folder / "model-00001-of-00002.safetensors"
    tensors = load_file(file)
    for name, tensor in change.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, file)


def test_every_unplaced_tensor_is_named(tmp_path: Path) -> None:
    bundle = released_bundle(LANGUAGES[0])
    write_released(bundle, LANGUAGES[0], tmp_path / "released")
    names = sorted(load_file(tmp_path / "released" / "model-00001-of-00002.safetensors"))
    gone = next(name for name in names if name.startswith("grounding_encoder.sam2_model.memory_encoder"))
    qkv = next(name for name in names if "attn.qkv" in name and name.startswith("vision_model"))
    changed(tmp_path / "released", {gone: None, qkv: torch.zeros(3), "stranger.weight": torch.zeros(1)})
    with pytest.raises(ModelError) as caught:
        read_released(tmp_path / "released")
    message = str(caught.value)
    assert f"missing {gone}" in message
    assert "unexpected stranger.weight" in message
    assert f"{qkv} has shape (3,), expected" in message
    assert "\n" not in message


def test_what_is_no_released_sa2va_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sa2va_chat", "text_config": {}}))
    with pytest.raises(ModelError, match="no Sa2VA of a known kind"):
        read_released(tmp_path)
    values = {"model_type": "sa2va_chat", "llm_config": {"architectures": ["Phi3ForCausalLM"]}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    tiny_segmenter().tokenizer.save_pretrained(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="'Phi3ForCausalLM', expected one of"):
        read_released(tmp_path)


def test_a_segmenter_without_memory_has_no_released_form(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="with its memory"):
        save_released(tiny_segmenter(), tmp_path / "written")


@pytest.mark.parametrize(("width", "blocks"), HIERAS)
def test_sam_2_is_recognised_by_its_weights(width: int, blocks: int, tmp_path: Path) -> None:
    trunk = "grounding_encoder.sam2_model.image_encoder.trunk."
    state = {f"{trunk}blocks.{i}.norm1.weight": torch.zeros(1) for i in range(blocks)}
    config = sam_config({}, {**state, f"{trunk}patch_embed.proj.bias": torch.zeros(width)}, "here")
    backbone = config.vision_config.backbone_config
    assert sum(backbone.blocks_per_stage) == blocks
    assert backbone.embed_dim_per_stage[0] == backbone.hidden_size == width
    assert not config.enable_temporal_pos_encoding_for_object_pointers
    config.save_pretrained(tmp_path)
    again = read_transformers_config(tmp_path / "config.json")  # no number in it is taken for implausible
    assert again.vision_config.backbone_config.embed_dim_per_stage == backbone.embed_dim_per_stage
    with pytest.raises(ModelError, match="expected"):
        sam_config({}, state, "here")


def test_what_a_configuration_leaves_out(tmp_path: Path) -> None:
    """As the released code's own defaults: patches of 14 pixels, and a pixel shuffle that is not supported."""
    values = released_values_of(tmp_path)
    del values["vision_config"]["patch_size"]
    assert vlm_config(values, 5, False, "here").vision_config.patch_size == [14, 14]
    for change in ({"ps_version": "v1"}, {"select_layer": -2}):
        with pytest.raises(ModelError, match=r"here: ps_version .* expected 'v2' and -1") as caught:
            vlm_config({**values, **change}, 5, False, "here")
        assert "\n" not in str(caught.value)
    del values["ps_version"]
    with pytest.raises(ModelError, match=r"ps_version 'v1' \(v1 where the file has none\)"):
        vlm_config(values, 5, False, "here")


def released_values_of(folder: Path) -> dict[str, Any]:
    write_released(released_bundle("Qwen2ForCausalLM"), "Qwen2ForCausalLM", folder / "released")
    values: dict[str, Any] = json.loads((folder / "released" / "config.json").read_text())
    return values
