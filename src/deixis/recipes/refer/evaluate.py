"""Measure a segmenter on annotated phrases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.table import Table

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.errors import OptionError
from deixis.evaluation.refer_iou import ReferMetrics, evaluate_segmentations
from deixis.inference.outputs.segmentations import segmentation_record
from deixis.inference.refer.segmenter import load_segmenter
from deixis.models.builtin import model_of_run
from deixis.models.model_record import RECORD_FILE, update_record
from deixis.models.sa2va.bundle import PRESENCE
from deixis.options.checks import A_SEGMENTER
from deixis.options.refer_eval import ReferEvalOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.model.choice import warn_of_shapes
from deixis.recipes.refer.data.sources import read_refer_sources
from deixis.recipes.refer.presence import emptied, every_mask_shown, fit_threshold, threshold_line
from deixis.recipes.refer.report import GROUPS
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.owned_output import writes_output


@writes_output("metrics.json", "segmentations.json")
def evaluate_segmenter(options: ReferEvalOptions) -> ReferMetrics:
    """Print cIoU and gIoU overall and by group; with --output, write them and the masks.

    Raises:
        DeixisError: options, data or model cannot be used.
    """
    dataset = read_refer_sources(options.data, options.images, options.format)
    device = choose_device(options.device)
    segmenter = load_segmenter(
        options.model, device, options.max_tiles, generate=options.generate, threshold=options.threshold
    )
    warn_of_shapes(segmenter.bundle.record, options.model, f"--model {A_SEGMENTER}", options.data)
    if options.fit_threshold and segmenter.bundle.behaviour != "deixis":
        raise OptionError(
            f"--fit-threshold: {options.model} has behaviour sa2va, which does not predict whether an object is "
            "visible; remove the option"
        )
    # A threshold is fitted on the masks of all phrases; `emptied` then empties those below it.
    with ProgressBar("images") as progress, every_mask_shown(segmenter) if options.fit_threshold else nullcontext():
        metrics, answers = segmenter.evaluate(dataset, options.batch_size, limit=options.max_images, progress=progress)
    truth, found = [sample for sample, _ in answers], [segmentations for _, segmentations in answers]
    fitted = {}
    if options.fit_threshold:
        fitted = fit_threshold(segmenter, truth, found)
        found = emptied(segmenter, found)
        metrics = evaluate_segmentations(truth, found)
    print_refer_metrics(metrics)
    if segmenter.bundle.behaviour == "deixis":
        print_threshold(options, segmenter.threshold, metrics.as_dict() | fitted)
    if fitted:
        update_record(model_of_run(options.model), task="segmenter", thresholds={PRESENCE: segmenter.threshold})
    if options.output is not None:
        write_atomic(options.output / "metrics.json", json.dumps(metrics.as_dict() | fitted, indent=2) + "\n")
        records = [segmentation_record(answer) for of_image in found for answer in of_image]
        write_atomic(options.output / "segmentations.json", json.dumps(records) + "\n")
    return metrics


def print_refer_metrics(metrics: ReferMetrics) -> None:
    """A table of the headline metrics, one line per group."""
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
    for name, meaning in (
        ("N_acc", "of the phrases without an object, left empty"),
        ("T_acc", "of the others, not left empty"),
    ):
        if name in values:
            console.print(f"{name} {_percent(values, name)} %: {meaning}")


def print_threshold(options: ReferEvalOptions, threshold: float, values: Mapping[str, Any]) -> None:
    """The presence threshold of the metrics; where it was fitted, also the metrics at other thresholds."""
    console = Console(highlight=False)
    if not options.fit_threshold:
        origin = "the model's own" if options.threshold is None else "--threshold"
        console.print(f"presence threshold {threshold:.3f} ({origin}): masks of less probable objects are left empty")
        return
    curve = values.get("presence_curve", {})
    # Every fifth row of the curve: the table is to be read.
    for at, *found in list(zip(*curve.values(), strict=True))[5::5]:
        n_acc, t_acc, giou = (f"{100 * value:5.1f} %" for value in found)
        console.print(f"  at {at:.1f}  N_acc {n_acc}  T_acc {t_acc}  gIoU {giou}")
    console.print(threshold_line(values, threshold), markup=False)
    if curve:
        console.print(f"stored in {Path(model_of_run(options.model)) / RECORD_FILE}", markup=False)


def _percent(values: dict[str, Any], name: str) -> str:
    return f"{100 * values[name]:.1f}" if name in values else "-"
