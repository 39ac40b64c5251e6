"""Between the base's weights and the tuned model's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_detectors import IDS, bert_tokenizer, images, perturb, prompts, small_config

from deixis.errors import ModelError, OptionError
from deixis.models.adapters import add_lora
from deixis.models.checkpoints import with_learned_names
from deixis.models.grounding_dino import GroundingDinoBundle, init_bundle
from deixis.models.interpolation import interpolate

INPUTS = images((96, 64)) | prompts(IDS[0])


def bundle(seed: int, flavour: str = "mm-grounding-dino", **changes: int) -> GroundingDinoBundle:
    made = init_bundle(small_config(flavour, **changes), bert_tokenizer(), (96, 160))
    perturb(made.model.eval(), seed)
    return replace(made, source=f"model {seed}")


def test_both_ends_are_exact_and_the_middle_is_the_mean() -> None:
    base, tuned = bundle(1), replace(bundle(2), image_size=(64, 96))
    with torch.no_grad():
        base.model.model.level_embed.fill_(1e30)  # base + (tuned - base) would lose the tuned value
    first, second = base.model.state_dict(), tuned.model.state_dict()
    for share, wanted in ((0.0, first), (1.0, second)):
        found = interpolate(base, tuned, share)
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.model.state_dict().items())
    middle = interpolate(base, tuned, 0.5)
    for name, tensor in middle.model.state_dict().items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2, msg=name)
    assert middle.image_size == (64, 96)
    assert middle.source == "model 1 to model 2 at 0.5"


def test_the_two_given_stay_as_they_are() -> None:
    base, tuned = bundle(1), bundle(2)
    before = tuned.model(**INPUTS)["pred_boxes"]
    middle = interpolate(base, tuned, 0.3)
    perturb(middle.model, 5, scale=1.0)
    assert torch.equal(tuned.model(**INPUTS)["pred_boxes"], before)


def test_the_base_stays_as_it_is_where_the_tuned_model_has_learned_names() -> None:
    base, tuned = bundle(1), with_learned_names(bundle(2), ["cat"])
    weights = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    rows = base.model.config.text_config.vocab_size
    middle = interpolate(base, tuned, 0.3)
    assert middle.model.config.text_config.vocab_size == rows + 1 == len(middle.tokenizer)
    assert base.model.config.text_config.vocab_size == rows == len(base.tokenizer)
    assert base.model.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in base.model.state_dict().items())


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_that_cannot_be(share: float) -> None:
    model = bundle(1)
    with pytest.raises(OptionError, match="between 0"):
        interpolate(model, model, share)


def test_different_models() -> None:
    with pytest.raises(ModelError, match=r"level_embed is \(3, 64\) and \(4, 64\)"):
        interpolate(bundle(1), bundle(2, num_feature_levels=4), 0.5)
    with pytest.raises(ModelError, match=r"class_embed\.0\.bias is only in one"):
        interpolate(bundle(1), bundle(2, "grounding-dino"), 0.5)
    adapted = bundle(2)
    add_lora(adapted.model, rank=2)
    with pytest.raises(ModelError, match="lora_A"):
        interpolate(bundle(1), adapted, 0.5)
