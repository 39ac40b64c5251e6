"""The examples in docstrings print what they say."""

from __future__ import annotations

import doctest
import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import deixis
from deixis import records, refer_records, video_records

SOURCE = Path(deixis.__file__).parent
MODULES = sorted(
    ".".join(("deixis", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
COMMON = {
    "math": math,
    "np": np,
    "torch": torch,
    "Path": Path,
    **{name: value for each in (records, refer_records, video_records) for name, value in vars(each).items()},
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in finder.find(module, globs={**COMMON, **vars(module)}):
        runner.run(example)
    assert runner.failures == 0
