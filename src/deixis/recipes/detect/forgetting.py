"""What a fine-tuned detector has forgotten, and how much of it a step back towards its base brings back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.table import Table

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.data.formats import read_dataset
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.evaluation.trade_off import TradeOff, knee
from deixis.inference.detect.detector import Detector
from deixis.models.checkpoints import load_any_detector, with_learned_names
from deixis.models.interpolation import interpolated_state
from deixis.models.text import learned_names
from deixis.options.detect_train import Forgetting
from deixis.records import Dataset
from deixis.reporting.data import ForgettingFacts
from deixis.training.validation import spread_evenly

Measure = Callable[[Detector, Dataset], DetectionMetrics]


@dataclass(frozen=True)
class ForgettingData:
    """What is measured on: `new` is (a part of) the data reported on, `old` shows what the base could do."""

    new: Subset
    old: Subset


def read_forgetting_data(forgetting: Forgetting, reported: Dataset, name: str) -> ForgettingData | None:
    """Both data sets, at most `forgetting_max_images` of each, spread evenly; None if there are no names to forget.

    Args:
        reported: the data that the run is reported on.
        name: of that data.

    Raises:
        DataError: they cannot be read, or have no object in the images chosen.
    """
    if not forgetting.forgetting_data:
        return None
    old = read_dataset(forgetting.forgetting_data, forgetting.forgetting_images, masks=False)
    most = forgetting.forgetting_max_images
    return ForgettingData(_part(reported, most, name), _part(old, most, forgetting.forgetting_data))


def measure_forgetting(
    base: str,
    best: Path,
    teacher: Path,
    data: ForgettingData,
    *,
    is_adapter: bool,
    sweep: Sequence[float],
    image_size: tuple[int, int] | None,
    measure: Measure,
    device: torch.device,
) -> ForgettingFacts:
    """AP on new and on old data before training, after it, and at the weights in between.

    Args:
        base: the model before training.
        best: the trained detector, or its adapter, which is merged first: a weight is then a factor on its scale.
        teacher: where users find it, for the command that writes the knee.
        sweep: weights of the trained model, from 0 to 1.
        image_size: of the run, where it is not the model's own.
        measure: metrics of a detector on a data set.

    Raises:
        DeixisError: a detector or an image cannot be read.
    """
    bundle = load_any_detector(best)
    start = load_any_detector(base)
    # The base gets the tokens that training added, so that tensors of both models have one shape.
    first = with_learned_names(start, tuple(learned_names(bundle.tokenizer))).model.state_dict()
    if image_size is not None:
        bundle = replace(bundle, image_size=image_size)
    # Copies, as the loop below overwrites the model's own tensors.
    last = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}
    detector, points = Detector(bundle, device), []
    for weight in sorted({0.0, *sweep, 1.0}):
        # WiSE-FT (arXiv 2109.01903): the straight line between the two models' weights.
        bundle.model.load_state_dict(interpolated_state(first, last, weight))
        points.append(TradeOff(weight, measure(detector, data.new).AP, measure(detector, data.old).AP))
    command = merge_command(teacher, knee(points).weight, base=None if is_adapter else base)
    return ForgettingFacts(data.old.name, len(data.new), len(data.old), points, command)


def merge_command(teacher: Path, weight: float, *, base: str | None) -> str:
    """The command that writes the detector at a weight; empty at both ends, which exist already.

    Args:
        teacher: the trained model or adapter as users find it.
        base: the model before training; None for an adapter, which names it.
    """
    if weight in (0, 1):
        return ""
    base_flag = "" if base is None else f" --base {base}"
    return f"deixis model merge {teacher}{base_flag} --weight {weight:g} --output {teacher}_{weight:g}"


def print_forgetting(console: Console, facts: ForgettingFacts) -> None:
    """Print the sweep, the knee and how to get it."""
    best = knee(facts.points)
    table = Table(title=f"forgetting: {facts.new_images} new images, {facts.old_images} of {facts.old_name}")
    for heading in ("weight", "AP new", "AP old", "balance"):
        table.add_column(heading, justify="right")
    for point in facts.points:
        values = (f"{value:.4f}" for value in (point.AP_new, point.AP_old, point.balance))
        table.add_row(f"{'knee ' if point == best else ''}{point.weight:g}", *values)
    console.print(table)
    if facts.command:
        console.print(f"knee    {facts.command}", markup=False)


def write_forgetting(path: Path, facts: ForgettingFacts) -> None:
    """Write the sweep as JSON."""
    content = {**asdict(facts), "knee": knee(facts.points).weight}
    write_atomic(path, json.dumps(content, indent=2) + "\n")


def _part(dataset: Dataset, most: int, name: str) -> Subset:
    part = Subset(dataset, tuple(spread_evenly(len(dataset), most)), name)
    if not any((~part[i].instances.is_crowd).any() for i in range(len(part))):
        raise DataError(
            f"{name}: no object in {len(part)} of its images, so forgetting cannot be measured; use other data"
        )
    return part
