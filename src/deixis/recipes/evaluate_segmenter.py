"""Measure a segmenter on annotated phrases."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from deixis.console import Console
from deixis.data.writers.files import write_atomic
from deixis.evaluation.refer_iou import ReferMetrics
from deixis.inference.refer_outputs import segmentation_record
from deixis.inference.segmenter import load_segmenter
from deixis.recipes.devices import choose_device
from deixis.recipes.model_choice import warn_of_shapes
from deixis.recipes.option_checks import A_SEGMENTER
from deixis.recipes.owned_output import writes_output
from deixis.recipes.progress import progress_bar
from deixis.recipes.refer_options import ReferEvalOptions
from deixis.recipes.refer_report import GROUPS
from deixis.recipes.refer_sources import read_refer_sources


@writes_output("metrics.json", "segmentations.json")
def evaluate_segmenter(options: ReferEvalOptions) -> ReferMetrics:
    """Print cIoU and gIoU overall and by group; write them and the masks where asked.

    Raises:
        DeixisError: options, data or model cannot be used.
    """
    options.check()
    dataset = read_refer_sources(options.data, options.images, options.format)
    segmenter = load_segmenter(options.model, choose_device(options.device), options.max_tiles, options.generate)
    warn_of_shapes(segmenter.bundle.record, options.model, f"--model {A_SEGMENTER}", options.data)
    with progress_bar("images") as progress:
        metrics, answers = segmenter.evaluate(dataset, options.batch_size, options.max_images, progress)
    print_refer_metrics(metrics)
    if options.output is not None:
        write_atomic(options.output / "metrics.json", json.dumps(metrics.as_dict(), indent=2) + "\n")
        records = [segmentation_record(answer) for _, found in answers for answer in found]
        write_atomic(options.output / "segmentations.json", json.dumps(records) + "\n")
    return metrics


def print_refer_metrics(metrics: ReferMetrics) -> None:
    """A table of the headline metrics and one line a group."""
    values = metrics.as_dict()
    table = Table(title=f"{metrics.phrases} phrases in {metrics.images} images")
    for heading in ("", "phrases", "gIoU %", "cIoU %"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row("all", str(metrics.phrases), _percent(values, "gIoU"), _percent(values, "cIoU"))
    for name, title in GROUPS.items():
        table.add_section()
        for group, found in values.get(name, {}).items():
            label = f"{title}: {group}"
            table.add_row(label, str(found["phrases"]), _percent(found, "gIoU"), _percent(found, "cIoU"))
    console = Console(highlight=False)
    console.print(table)
    for name, meaning in (("N_acc", "left empty where nothing is meant"), ("T_acc", "not left empty otherwise")):
        if name in values:
            console.print(f"{name} {_percent(values, name)} %: {meaning}")


def _percent(values: dict[str, Any], name: str) -> str:
    return f"{100 * values[name]:.1f}" if name in values else "-"
