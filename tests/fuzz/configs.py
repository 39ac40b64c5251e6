"""Builders for YAML files of options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from deixis.options.detect_train import DetectTrainOptions
from deixis.options.refer_train import ReferTrainOptions
from deixis.options.yaml_files import read_options, write_options


def _detect(folder: Path, random: Random) -> Callable[[], object]:
    write_options(DetectTrainOptions(data=("labels.json",), output=Path("runs/x")), folder / "config.yaml")
    return lambda: read_options(DetectTrainOptions, folder / "config.yaml")


def _refer(folder: Path, random: Random) -> Callable[[], object]:
    write_options(ReferTrainOptions(data=("data.json",), output=Path("runs/x")), folder / "config.yaml")
    return lambda: read_options(ReferTrainOptions, folder / "config.yaml")


BUILDERS = {"detect config": _detect, "refer config": _refer}
