"""The lines of a model's card, run as they stand in plain transformers and PEFT, give deixis's answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from small_detectors import authors_epsilons, bert_tokenizer, perturb, small_config
from small_segmenters import tiny_segmenter
from tiny_exports import with_additions

from deixis.data.detect.prompts import build_prompt
from deixis.models.adapters import add_lora, save_adapter
from deixis.models.checkpoints import load_any_detector, save_detector
from deixis.models.edits.files import first_weights, read_first
from deixis.models.grounding_dino import init_bundle, load_grounding_dino, save_grounding_dino
from deixis.models.hub.base_models import card_head
from deixis.models.hub.push import files_to_send
from deixis.models.model_card import write_card
from deixis.models.model_record import ModelRecord, read_record, update_record, write_record
from deixis.models.sa2va import load_sa2va, save_sa2va
from deixis.recipes.model.info import bundle_lines

FLAVOURS = {"grounding-dino": "GroundingDino", "mm-grounding-dino": "MMGroundingDino"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the lines run in, with a picture; transformers' classes are put back afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in FLAVOURS.values():
        model = getattr(transformers, f"{name}Model")
        monkeypatch.setattr(model, "get_input_embeddings", model.get_input_embeddings)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.jpg")
    return tmp_path


def write_detector(folder: Path, flavour: str) -> Path:
    torch.manual_seed(0)
    bundle = init_bundle(small_config(flavour), bert_tokenizer(), (96, 160))
    perturb(bundle.model)
    save_grounding_dino(bundle, folder)
    return folder


def blocks(folder: Path) -> list[dict[str, Any]]:
    """What each block of Python in a card leaves behind."""
    found = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    spaces: list[dict[str, Any]] = [{} for _ in found]
    for code, space in zip(found, spaces, strict=True):
        exec(code, space)
    return spaces


@torch.no_grad()
def assert_same_answers(theirs: Any, folder: Path, inputs: dict[str, torch.Tensor]) -> None:
    """transformers' answers, with the authors' epsilons, beside those of deixis."""
    bundle = load_any_detector(str(folder))
    masks = {name: inputs[name].bool() for name in ("pixel_mask", "attention_mask")}
    ours = bundle.model(pixel_values=inputs["pixel_values"], input_ids=inputs["input_ids"], **masks)
    with authors_epsilons(theirs):
        outputs = theirs.eval()(**inputs)
    torch.testing.assert_close(ours["pred_logits"], outputs.logits, atol=2e-4, rtol=0)
    torch.testing.assert_close(ours["pred_boxes"], outputs.pred_boxes, atol=1e-4, rtol=0)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_lines_of_a_detector(flavour: str, here: Path) -> None:
    folder = write_detector(here / "mine", flavour)
    figures = {"validation": {"epoch": 3, "AP": 0.512345}}
    write_record(folder, ModelRecord(task="detector", names=("red square", "cat_x"), metrics=figures))
    write_card(folder)
    (space,) = blocks(folder)
    assert_same_answers(space["model"], folder, dict(space["inputs"]))
    assert len(space["found"]) == 1
    assert type(space["model"]).__name__ == f"{FLAVOURS[flavour]}ForObjectDetection"
    text = (folder / "README.md").read_text(encoding="utf-8")
    for wanted in ("transformers 5.23", r"red square, cat\_x", "| validation | AP | 0.5123 |", "optimistic"):
        assert wanted in text


def test_the_lines_of_a_detector_with_tokens_edits_and_sinks(here: Path) -> None:
    """All of them in one folder: plain transformers finds the same, without the sinks, which the card says."""
    folder = here / "mine"
    torch.manual_seed(0)
    bundle = init_bundle(small_config(), bert_tokenizer(), (96, 160))
    perturb(bundle.model)
    bundle = with_additions(bundle, folder)
    save_detector(bundle, folder)
    update_record(folder, names=("Red square", "cat"), sinks={"count": 3, "kind": "random"})
    write_card(folder)
    (space,) = blocks(folder)
    inputs = dict(space["inputs"])
    prompt = build_prompt(["Red square", "cat"], load_any_detector(str(folder)).prompt_tokenizer)
    assert inputs["input_ids"].tolist() == [list(prompt.input_ids)]
    assert_same_answers(space["model"], folder, inputs)
    text = (folder / "README.md").read_text(encoding="utf-8")
    for wanted in ('["<red square>", "cat"]', "a token of their own", "sinks.safetensors"):
        assert wanted in text
    told = "\n".join(bundle_lines(load_any_detector(str(folder)), str(folder)))
    for wanted in ("own tokens   red square; written <red square>", "edits        mine", "sinks        3"):
        assert wanted in told
    assert {"edits/base.safetensors", "edits/mine.safetensors", "sinks.safetensors"} <= {
        path.as_posix() for path in files_to_send(folder)
    }
    assert bundle.sinks is not None
    first = read_first(folder, bundle)
    assert not any(torch.equal(weight, first[name]) for name, weight in first_weights(bundle).items()), "edited"


def test_the_other_class_would_drop_the_bias(here: Path) -> None:
    """What the README said for every detector: a test that could not tell would be none."""
    folder = write_detector(here / "mine", "mm-grounding-dino")
    write_card(folder)
    (space,) = blocks(folder)
    wrong = transformers.GroundingDinoForObjectDetection.from_pretrained(folder)
    with pytest.raises(AssertionError):
        assert_same_answers(wrong, folder, dict(space["inputs"]))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_lines_of_an_adapter(flavour: str, here: Path) -> None:
    base = write_detector(here / "base", flavour)
    write_card(base)
    inputs = dict(blocks(base)[0]["inputs"])
    adapter = here / "adapter"
    write_adapter(adapter, base, str(base))
    spaces = blocks(adapter)
    assert len(spaces) == 2  # PeftModel and AutoPeftModel
    for space in spaces:
        assert_same_answers(space["model"], adapter, inputs)


def test_the_lines_of_an_adapter_on_the_builtin_model(here: Path) -> None:
    from deixis.models.builtin import builtin_folder

    adapter = here / "adapter"
    write_adapter(adapter, builtin_folder("detector"), "builtin", noise=0.01)  # more would make its queries tie
    (space,) = blocks(adapter)
    processor = transformers.AutoProcessor.from_pretrained(builtin_folder("detector"))
    inputs = processor(images=Image.open("photo.jpg"), text=[["red star", "fish"]], return_tensors="pt")
    assert_same_answers(space["model"], adapter, dict(inputs))
    assert "AutoPeftModel` cannot be used" in (adapter / "README.md").read_text(encoding="utf-8")


def write_adapter(folder: Path, base: Path, named: str, noise: float = 0.1) -> None:
    bundle = load_grounding_dino(base)
    add_lora(bundle.model, rank=2)
    with torch.no_grad():
        for name, parameter in bundle.model.named_parameters():
            if ".lora_B." in name:
                parameter.add_(noise * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    save_adapter(bundle.model, folder, base=named)
    update_record(folder, task="detector", names=("cat",))
    write_card(folder)


@torch.no_grad()
def test_the_lines_of_a_segmenter(here: Path) -> None:
    folder = here / "mine"
    save_sa2va(tiny_segmenter(), folder)
    write_record(folder, ModelRecord(task="segmenter", domain="generated"))
    write_card(folder)
    deixis, halves = blocks(folder)
    ours = load_sa2va(folder).model
    assert torch.equal(deixis["segmenter"].bundle.model.vlm.lm_head.weight, ours.vlm.lm_head.weight)
    for half, theirs in ((ours.vlm, halves["vlm"]), (ours.sam, halves["sam"])):
        own = half.state_dict()
        assert own.keys() == theirs.state_dict().keys()
        assert all(torch.equal(tensor, own[name]) for name, tensor in theirs.state_dict().items())
    assert "generated shapes only" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_head_is_what_the_hub_reads(here: Path) -> None:
    folder = write_detector(here / "mine", "grounding-dino")
    record = ModelRecord(
        task="detector",
        names=("cat",),
        metrics={"test": {"epoch": 3, "AP": 0.5123456, "AP50": 0.7, "loss": 1.0}},
        metrics_before={"test": {"AP": 0.25}},
        base="IDEA-Research/grounding-dino-tiny",
        base_license="apache-2.0",
        training={"images": 144, "epochs": 20, "data": ["labels.json", "me/cats"]},
    )
    write_record(folder, record)
    assert read_record(folder) == record
    write_card(folder)
    head = card_head(folder / "README.md")
    assert head["library_name"] == "transformers"
    assert head["pipeline_tag"] == "zero-shot-object-detection"
    assert head["base_model"] == "IDEA-Research/grounding-dino-tiny"
    assert head["license"] == "apache-2.0"
    assert head["datasets"] == ["me/cats"]
    assert head["metrics"] == ["AP", "AP50"]
    assert head["tags"] == ["deixis"]
    read = huggingface_hub.ModelCardData(**head, ignore_metadata_errors=False)
    (result,) = read.to_dict()["model-index"][0]["results"]
    assert [(metric["type"], metric["value"]) for metric in result["metrics"]] == [("AP", 0.51235), ("AP50", 0.7)]
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "| test | AP | 0.5123 | 0.25 |" in text
    assert "Fine-tuned from IDEA-Research/grounding-dino-tiny (licence apache-2.0) on 144 images of labels.json" in text
