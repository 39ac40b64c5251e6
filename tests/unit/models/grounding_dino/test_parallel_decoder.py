"""A decoder whose layers run in parallel: what each starts from, what is averaged, and where it is kept."""

from __future__ import annotations

import json

import pytest
import torch
from small_detectors import bert_tokenizer, images, perturb, small_config

from deixis.data.detect.prompts import build_prompt
from deixis.errors import ModelError
from deixis.models.checkpoints import load_any_detector, save_checkpoint
from deixis.models.grounding_dino import init_bundle, save_grounding_dino
from deixis.models.grounding_dino.detector import averaged
from deixis.models.model_card import write_card
from deixis.models.onnx.export import graphs


@pytest.fixture
def bundle():
    torch.manual_seed(0)
    made = init_bundle(small_config("mm-grounding-dino", decoder_layers=3, num_queries=15), bert_tokenizer(), (64, 96))
    perturb(made.model.eval())
    return made


def outputs(bundle):
    ids = torch.tensor([build_prompt(("cat", "red square"), bundle.prompt_tokenizer).input_ids])
    with torch.no_grad():
        return bundle.model(**images((64, 64)), input_ids=ids, attention_mask=torch.ones_like(ids).bool())


def test_all_layers_but_the_first_start_from_the_first_ones_queries(bundle):
    in_sequence = outputs(bundle)
    bundle.model.parallel = True
    found = outputs(bundle)
    starts = []
    hooks = [
        layer.register_forward_hook(lambda _, given, out: starts.append((given[0], given[2], out)))
        for layer in bundle.model.model.decoder.layers
    ]
    again = outputs(bundle)
    for hook in hooks:
        hook.remove()
    assert torch.equal(again["pred_boxes"], found["pred_boxes"])
    assert torch.equal(starts[1][0], starts[0][2])
    assert torch.equal(starts[2][0], starts[0][2])
    assert torch.equal(starts[2][1], starts[1][1])
    for key in ("pred_logits", "pred_boxes"):
        assert torch.equal(found["aux_outputs"][0][key], in_sequence["aux_outputs"][0][key])
        assert torch.equal(found["aux_outputs"][1][key], in_sequence["aux_outputs"][1][key])
        assert not torch.allclose(found[key][..., :4], in_sequence[key][..., :4])


def test_predictions_are_averaged_in_evaluation_alone(bundle):
    bundle.model.parallel = True
    found = outputs(bundle)
    bundle.model.training = True  # its parts stay as they are: without dropout
    last = outputs(bundle)
    layers = [*last["aux_outputs"], last]
    tokens = int(found["text_token_mask"].sum())
    wanted = torch.stack([layer["pred_logits"].double().sigmoid() for layer in layers]).mean(0)
    torch.testing.assert_close(found["pred_logits"].double().sigmoid(), wanted, atol=1e-6, rtol=1e-5)
    assert (found["pred_logits"][..., tokens:] == -torch.inf).all()
    torch.testing.assert_close(found["pred_boxes"], torch.stack([layer["pred_boxes"] for layer in layers]).mean(0))


def test_far_logits_stay_finite():
    layers = [
        {"pred_logits": torch.tensor([[[logit, -torch.inf]]]), "pred_boxes": torch.zeros(1, 1, 4)}
        for logit in (-200.0, -300.0)
    ]
    logits = averaged(layers)["pred_logits"][0, 0]
    assert logits[0] == pytest.approx(-200 - torch.tensor(2.0).log().item())
    assert logits[1] == -torch.inf


def test_the_folder_keeps_it_and_says_where_it_works(bundle, tmp_path):
    bundle.model.parallel = True
    save_grounding_dino(bundle, tmp_path / "model")
    write_card(tmp_path / "model")
    again = load_any_detector(tmp_path / "model")
    assert again.model.parallel
    assert torch.equal(outputs(again)["pred_logits"], outputs(bundle)["pred_logits"])
    assert "in sequence" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(ModelError, match="no parallel decoder"):
        save_checkpoint(again, tmp_path / "x.pth", "mmdetection")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "parallel_decoder": False}))
    assert not load_any_detector(tmp_path / "model").model.parallel


def test_the_exported_graphs_average_too(bundle):
    bundle.model.parallel = True
    prompt = build_prompt(("cat", "red square"), bundle.prompt_tokenizer)
    image, text = graphs(bundle, prompt)
    logits, boxes, _ = text(image(images((64, 64))["pixel_values"]))
    found = outputs(bundle)
    torch.testing.assert_close(logits, found["pred_logits"][..., : logits.shape[-1]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(boxes, found["pred_boxes"], atol=1e-5, rtol=1e-4)
