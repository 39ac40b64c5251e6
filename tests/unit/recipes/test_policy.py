"""Which recipe, and what it decides."""

from typing import get_args

import pytest

from deixis.errors import OptionError
from deixis.models.adapters import TARGETS
from deixis.models.freezing import PARTS
from deixis.options.detect_train import DetectLora, DetectParts, DetectTrainOptions, LoraTarget, Part
from deixis.recipes.detect.policy import RECIPES, learning_rates, recipe_for, resolve


def resolved(images=100, **changes):
    return resolve(DetectTrainOptions(data=("x",), **changes), images)


def rates_of(options):
    return learning_rates(options.group(DetectParts), options.group(DetectLora), options.learning_rate)


@pytest.mark.parametrize(
    ("images", "name"),
    [(1, "small"), (999, "small"), (1000, "medium"), (10_000, "medium"), (10_001, "large"), (10**6, "large")],
)
def test_recipe_by_the_number_of_images(images, name):
    assert recipe_for(images) == name
    assert resolved(images).recipe == name


@pytest.mark.parametrize(
    ("name", "backbone", "text", "epochs"),
    [("small", 0.0, 0.0, 20), ("medium", 1e-5, 0.0, 12), ("large", 1e-4, 1e-5, 12)],
)
def test_the_three_recipes(name, backbone, text, epochs):
    options = resolved(recipe=name)
    rates = rates_of(options)
    assert rates == pytest.approx({"backbone": backbone, "text": text, "encoder": 1e-4, "decoder": 1e-4, "heads": 1e-4})
    assert options.epochs == epochs
    assert options.weight_decay == 1e-4
    assert options.clip_norm == 0.1


def test_what_replaced_scratch_trains_everything_as_fast():
    with pytest.raises(OptionError, match="recipe: scratch was removed; large with --text-lr-factor 1 --learning-rate"):
        resolved(recipe="scratch")
    assert set(rates_of(resolved(recipe="large", text_lr_factor=1.0, learning_rate=4e-4)).values()) == {4e-4}


def test_what_the_user_gives_stays():
    given = {"epochs": 3, "learning_rate": 5e-5, "backbone_lr_factor": 0.5, "ema_decay": 0.0, "eval_batch_size": 7}
    options = resolved(recipe="large", **given)
    assert {name: getattr(options, name) for name in given} == given


def test_resolving_twice_changes_nothing():
    assert resolve(resolved(50_000), 10) == resolved(50_000)


def test_frozen_parts_have_no_rate():
    rates = rates_of(resolved(freeze=("encoder", "heads")))
    assert [part for part, rate in rates.items() if rate > 0] == ["decoder"]


def test_lora_trains_its_targets_at_full_rate_whatever_the_recipe_freezes():
    rates = rates_of(resolved(lora=True, lora_targets=("backbone", "decoder")))
    assert rates == {"backbone": 1e-4, "text": 0.0, "encoder": 0.0, "decoder": 1e-4, "heads": 0.0}


def test_warm_up_is_a_twentieth_and_500_at_most():
    assert [resolved().warmup(total) for total in (1, 200, 100_000)] == [0, 10, 500]
    assert resolved(warmup_steps=7).warmup(200) == 7


def test_parts_are_those_of_the_model():
    assert get_args(Part) == PARTS
    assert set(get_args(LoraTarget)) == set(TARGETS)
    assert set(RECIPES) == {"few", "small", "medium", "large"}


def test_token_embeddings_train_on_images_as_they_are_unless_asked():
    assert resolved().augment == "light"
    assert resolved(keep="prompt").augment == "none"
    assert resolved(keep="prompt", augment="strong").augment == "strong"
    assert resolved(keep="prompt", flip_probability=0.2).augment == "light", "what was asked for is done"
