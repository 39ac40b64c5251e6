"""Names with token embeddings of their own: what they change, what they cannot change, and who can load them."""

from __future__ import annotations

import pytest
import torch
from small_detectors import images, perturb
from tiny_runs import write_tiny_model
from torch.testing import assert_close
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from deixis.data.detect.prompts import build_prompt
from deixis.errors import ModelError
from deixis.models.checkpoints import save_checkpoint
from deixis.models.grounding_dino import load_grounding_dino, save_grounding_dino
from deixis.models.grounding_dino.weights.learned_names import train_learned_names, with_learned_names
from deixis.models.text import learned_names

NAMES = ("Red  Star", "fish")


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    words = ("star", "fish", "house", "red", "big")
    bundle = load_grounding_dino(write_tiny_model(tmp_path_factory.mktemp("tiny") / "model", words=words))
    perturb(bundle.model)  # a new model's box heads are zero
    folder = tmp_path_factory.mktemp("perturbed")
    save_grounding_dino(bundle, folder)
    return folder


@pytest.fixture
def learned(tiny_model):
    """A detector with tokens for two names, whose rows are unlike all others."""
    bundle = with_learned_names(load_grounding_dino(tiny_model), NAMES)
    weight = bundle.model.model.text_backbone.get_input_embeddings().weight
    with torch.no_grad():
        weight[list(learned_names(bundle.tokenizer).values())] += 1.0
    return bundle


def outputs(bundle, names):
    prompt = build_prompt(names, bundle.prompt_tokenizer)
    ids = torch.tensor([prompt.input_ids])
    with torch.inference_mode():
        return bundle.model(**images((64, 64)), input_ids=ids, attention_mask=torch.ones_like(ids).bool())


def test_a_name_is_one_token_and_all_other_text_is_as_before(tiny_model, learned):
    plain = load_grounding_dino(tiny_model).prompt_tokenizer
    own = learned_names(learned.tokenizer)
    assert set(own) == {"red star", "fish"}
    text = " red star . big fish? FISH. red stars. fish house."
    ids, offsets = learned.prompt_tokenizer(text)
    before, _ = plain(text)
    assert [text[start:end] for i, (start, end) in zip(ids, offsets, strict=True) if i in own.values()] == [
        "red star",
        "FISH",
    ]
    rest = [i for i in ids if i not in own.values()]
    assert rest == plain(" . big fish? . red stars. fish house.")[0]
    assert len(ids) < len(before)
    assert learned.prompt_tokenizer("<fish>.")[0] == learned.prompt_tokenizer("fish.")[0], "written out, as elsewhere"


def test_prompts_without_the_names_cannot_change(tiny_model, learned):
    base = load_grounding_dino(tiny_model)
    for name in ("house", "star fish"):
        for key in ("pred_logits", "pred_boxes"):
            assert torch.equal(outputs(learned, [name])[key], outputs(base, [name])[key])
    assert not torch.equal(outputs(learned, ["fish"])["pred_boxes"], outputs(base, ["fish"])["pred_boxes"])


def test_a_row_starts_at_the_mean_of_the_names_pieces(tiny_model):
    base = load_grounding_dino(tiny_model)
    pieces = base.prompt_tokenizer("fish house.")[0][1:-2]
    assert len(pieces) == 2
    bundle = with_learned_names(base, ["fish house"])
    weight = bundle.model.model.text_backbone.get_input_embeddings().weight
    assert_close(weight[learned_names(bundle.tokenizer)["fish house"]], weight[pieces].mean(0))
    assert with_learned_names(bundle, ["Fish House"]) is bundle, "it has one already"


def test_only_the_names_rows_get_a_gradient(learned):
    train_learned_names(learned, NAMES)
    (name,) = [name for name, weight in learned.model.named_parameters() if weight.requires_grad]
    weight = learned.model.get_parameter(name)
    prompt = build_prompt(["fish", "house"], learned.prompt_tokenizer)
    ids = torch.tensor([prompt.input_ids])
    found = learned.model(**images((64, 64)), input_ids=ids, attention_mask=torch.ones_like(ids).bool())
    found["pred_logits"][..., : ids.shape[1]].sum().backward()
    own = learned_names(learned.tokenizer)
    assert weight.grad[own["fish"]].abs().sum() > 0
    others = [i for i in range(len(weight)) if i != own["fish"]]
    assert weight.grad[others].abs().sum() == 0
    assert ids[0, -2] != own["fish"], "a name without a row took part"


def test_a_name_without_a_token_of_its_own_cannot_train(tiny_model):
    bundle = with_learned_names(load_grounding_dino(tiny_model), ["fish"])
    with pytest.raises(ModelError, match=r"zebra, \[UNK\]: no tokens of their own; call with_learned_names"):
        train_learned_names(bundle, ["zebra", "fish", "[UNK]"])
    assert all(weight.requires_grad for weight in bundle.model.parameters()), "nothing is frozen"


def test_plain_transformers_loads_the_folder(learned, tmp_path):
    save_grounding_dino(learned, tmp_path / "learned")
    theirs = AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path / "learned").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "learned")
    ids = processor.tokenizer("<red star>. <fish>. house.")["input_ids"]
    prompt = build_prompt(["red star", "fish", "house"], learned.prompt_tokenizer)
    assert ids == list(prompt.input_ids)
    inputs = images((64, 64))
    with torch.inference_mode():
        found = theirs(
            pixel_values=inputs["pixel_values"],
            pixel_mask=inputs["pixel_mask"].long(),
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        )
    ours = outputs(learned, ["red star", "fish", "house"])
    assert_close(found.logits[..., : len(ids)], ours["pred_logits"][..., : len(ids)], atol=1e-4, rtol=1e-4)
    again = load_grounding_dino(tmp_path / "learned")
    assert torch.equal(outputs(again, ["fish"])["pred_logits"], outputs(learned, ["fish"])["pred_logits"])


def test_layouts_without_a_tokenizer_name_the_tokens(learned, tmp_path):
    with pytest.raises(ModelError, match="red star, fish"):
        save_checkpoint(learned, tmp_path / "x.pth", "idea")
    assert not (tmp_path / "x.pth").exists()
