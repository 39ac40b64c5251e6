"""Options have the types of their fields, however they were made; every kind of them."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import config

import deixis.options
from deixis.errors import OptionError
from deixis.options.data_split import DataSplitOptions
from deixis.options.detect_eval import DetectEvalOptions
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.detect_train import DetectTrainOptions
from deixis.options.refer_predict import ReferPredictOptions
from deixis.options.refer_train import ReferTrainOptions
from deixis.options.types import Options


@pytest.fixture(autouse=True)
def as_users_run_it() -> Iterator[None]:
    """Without the type checker of the tests, which would refuse wrong values before the options see them."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def kinds() -> list[type]:
    """Every dataclass of the package that is called ...Options."""
    modules = pkgutil.iter_modules(deixis.options.__path__)
    names = [f"deixis.options.{module.name}" for module in modules]
    found = {
        kind
        for name in names
        for kind in vars(importlib.import_module(name)).values()
        if isinstance(kind, type) and is_dataclass(kind) and kind.__name__.endswith("Options")
    }
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_kind_checks_every_field(kind: Any) -> None:
    assert issubclass(kind, Options)
    plain = kind()
    for field in fields(kind):
        flag = f"--{field.name.replace('_', '-')}"
        with pytest.raises(OptionError, match=flag):
            kind(**{field.name: object()})
        kind(**{field.name: getattr(plain, field.name)})  # defaults are of their own types


def test_there_are_all_kinds() -> None:
    assert len(kinds()) >= 20


@pytest.mark.parametrize(
    ("kind", "name", "given", "wanted"),
    [
        (DetectTrainOptions, "data", "x.json", ("x.json",)),
        (DetectTrainOptions, "data", Path("a/b"), ("a/b",)),
        (DetectTrainOptions, "data", ["a", "b"], ("a", "b")),
        (DetectTrainOptions, "images", "photos", (Path("photos"),)),
        (DetectTrainOptions, "images", [Path("a"), "b"], (Path("a"), Path("b"))),
        (DetectTrainOptions, "data_weights", 2, (2.0,)),
        (DetectTrainOptions, "output", "runs/x", Path("runs/x")),
        (DetectTrainOptions, "image_size", [480, 640], (480, 640)),
        (DetectTrainOptions, "freeze", "text", ("text",)),
        (DetectTrainOptions, "epochs", np.int64(3), 3),
        (DetectTrainOptions, "learning_rate", np.float32(0.5), 0.5),
        (DetectTrainOptions, "lora_alpha", 8, 8.0),
        (DetectTrainOptions, "model", Path("runs/x"), "runs/x"),
        (DetectPredictOptions, "images", "a.jpg", (Path("a.jpg"),)),
        (DetectPredictOptions, "names", "traffic light", ("traffic light",)),
        (ReferTrainOptions, "data", "phrases.json", ("phrases.json",)),
        (ReferTrainOptions, "test_data", "test.json", ("test.json",)),
        (ReferTrainOptions, "train", "mask_decoder", ("mask_decoder",)),
        (ReferPredictOptions, "phrases", "the red car", ("the red car",)),
    ],
)
def test_what_means_the_same_is_turned_into_it(kind: Any, name: str, given: Any, wanted: Any) -> None:
    found = getattr(kind(**{name: given}), name)
    assert found == wanted
    assert type(found) is type(wanted)
    assert getattr(replace(kind(), **{name: given}), name) == wanted


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("epochs", "5", "expected an integer"),
        ("epochs", 5.0, "expected an integer"),
        ("epochs", True, "expected an integer"),
        ("batch_size", None, "expected an integer"),
        ("learning_rate", "1e-4", "expected a number"),
        ("learning_rate", math.nan, "expected a number"),
        ("weight_decay", math.inf, "expected a number"),
        ("lora", 1, "expected true or false"),
        ("lora", "yes", "expected true or false"),
        ("data", 3, "expected text"),
        ("data", None, "expected a list"),
        ("data", {"a.json"}, "expected text"),
        ("data", ["a.json", 3], "expected text, got 3"),
        ("images", [b"a"], "expected a path"),
        ("image_size", 640, "expected a list"),
        ("image_size", (1, 2, 3), "expected 2 integers, got 1 2 3"),
        ("image_size", (1.5, 2), "expected an integer"),
        ("recipe", "huge", "expected one of auto, few, small"),
        ("recipe", ["small"], "expected one of"),
        ("val_data", ("a.json",), "expected text"),
    ],
)
def test_another_type_is_one_clear_line(name: str, given: Any, told: str) -> None:
    with pytest.raises(OptionError, match=f"--{name.replace('_', '-')}: .*{told}"):
        DetectTrainOptions(**{name: given})


def test_optional_values_may_be_none() -> None:
    assert DetectTrainOptions(epochs=None, image_size=None, val_images=None) == DetectTrainOptions()
    assert DetectEvalOptions(output=None).output is None
    assert DataSplitOptions(fractions=[0.8, 0.2]).fractions == (0.8, 0.2)
