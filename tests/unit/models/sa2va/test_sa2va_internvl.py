"""Released Sa2VA on InternVL 3 and 3.5, in the layout of each size: read strictly, trained for a step, written back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from internvl_layouts import LAYOUTS, published_config
from released_segmenters import released_bundle, released_state
from safetensors.torch import load_file, save_file
from small_segmenters import TURNS, WORDS, batch_of
from torch import Tensor

from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import Sa2vaBundle, init_sa2va, load_sa2va, save_released
from deixis.models.sa2va.families.internvl import vlm_config
from deixis.models.sa2va.small import small_chat_tokenizer

LAYER = "language_model.model.layers.1.self_attn."
VISION = "vision_model.encoder.layers.1.attn."
OUTPUT = "language_model.lm_head.weight"


def write_published(layout: str, folder: Path) -> dict[str, Tensor]:
    """A released folder with random weights; the weights."""
    tokenizer = small_chat_tokenizer(WORDS)
    values = published_config(layout, tokenizer)
    sam = released_bundle("Qwen2ForCausalLM").model.sam.config
    torch.manual_seed(0)
    image = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    bundle = init_sa2va(vlm_config(values, image, "tied" in layout, "here"), sam, tokenizer, behaviour="sa2va")
    with torch.no_grad():  # what starts at zero, or at one, would hide mistakes
        for parameter in bundle.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = released_state(bundle, "Qwen2ForCausalLM")
    folder.mkdir()
    files = {name: tensor for name, tensor in state.items() if name != OUTPUT or "tied" not in layout}
    save_file(files, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**values, "deixis_sam_config": sam.to_dict()}))
    tokenizer.save_pretrained(folder)
    return state


def step(bundle: Sa2vaBundle) -> None:
    """One of gradient descent, in all parameters."""
    bundle.model.train().requires_grad_(True)
    outputs = bundle.model(*batch_of(bundle, TURNS, (1, 1, 1)))
    targets = torch.rand(outputs["pred_masks"][:, 0].shape) > 0.7
    labels = torch.tensor(len(outputs["label_ids"]))
    criterion = ReferCriterion("sa2va", points=None)
    criterion.total(criterion(outputs, targets, torch.tensor(float(len(targets))), num_labels=labels)).backward()
    torch.optim.SGD(bundle.model.parameters(), lr=0.01).step()
    bundle.model.eval()


@torch.no_grad()
def outputs_of(bundle: Sa2vaBundle) -> dict[str, Tensor]:
    found: dict[str, Tensor] = bundle.model(*batch_of(bundle, TURNS, (1, 1, 1)))
    return found


def shapes(state: dict[str, Tensor], start: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(start): tuple(tensor.shape) for name, tensor in state.items() if name.startswith(start)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_size_is_read_trained_and_written_back(layout: str, tmp_path: Path) -> None:
    state = write_published(layout, tmp_path / "released")
    language, vision = shapes(state, LAYER), shapes(state, VISION)
    if "3.5" in layout:  # four heads of 16 beside a width of 32
        assert language["q_proj.weight"] == (64, 32)
        assert language["k_norm.weight"] == (16,)
    else:
        assert language["k_proj.bias"] == (16,)
    assert ("qkv.bias" in vision, "q_norm.weight" in vision) == ("38B" not in layout, "38B" in layout)

    bundle = load_sa2va(tmp_path / "released")
    assert bundle.tile_px == 448
    before = outputs_of(bundle)
    step(bundle)
    for like in (None, tmp_path / "released"):
        back = tmp_path / ("alone" if like is None else "beside")
        save_released(bundle, back, like)
        written = load_file(back / "model.safetensors")
        assert written.keys() == state.keys()
        assert {name for name in written if torch.equal(written[name], state[name])} <= untrained(written)
        if "tied" in layout:
            assert torch.equal(written[OUTPUT], written["language_model.model.embed_tokens.weight"])
            assert outputs_of(bundle)["label_logits"].isfinite().all()
        again = load_sa2va(back)
        assert again.model.vlm.config.tie_word_embeddings == ("tied" in layout)
        outputs = outputs_of(again)
        assert all(torch.equal(tensor, outputs[name]) for name, tensor in outputs_of(bundle).items())
        assert not torch.equal(outputs["label_logits"], before["label_logits"])
    assert_same_network(tmp_path / "alone", tmp_path / "released")


def untrained(written: dict[str, Tensor]) -> set[str]:
    """What a step on pictures leaves as it is: SAM 2's memory and box prompts, and what no loss reaches."""
    return {name for name in written if name.startswith("grounding_encoder.")}


def assert_same_network(written: Path, published: Path) -> None:
    """What config.json says of the network is what was published."""
    mine, theirs = (json.loads((folder / "config.json").read_text()) for folder in (written, published))
    for part in ("llm_config", "vision_config"):
        shared = mine[part].keys() & theirs[part].keys() - {"bos_token_id", "torch_dtype", "use_cache"}
        assert {"hidden_size", "num_attention_heads", "architectures"} <= shared
        said: dict[str, Any] = {name: theirs[part][name] for name in shared}
        if said.get("rope_scaling"):
            del said["rope_scaling"]["rope_type"]  # the older spelling is enough
        assert {name: mine[part][name] for name in shared} == said
