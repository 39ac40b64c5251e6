"""The plan of a run as it is printed before training, and by a dry run: what trains, how fast, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.table import Table
from torch import nn

from deixis.console import Console
from deixis.models.freezing import count_parts, training_lines
from deixis.options.groups import Optimiser
from deixis.training.run import LoopSettings


def print_parts(
    console: Console,
    title: str,
    model: nn.Module,
    *,
    parts: Sequence[str],
    part_of: Callable[[str], str],
    rates: Mapping[str, float] | None = None,
) -> None:
    """Print the parameters of each part of a model, and what trains.

    Args:
        part_of: the part that a parameter belongs to, by its name.
        rates: learning rate of each part, where they differ.
    """
    counts = count_parts(model, parts, part_of)
    table = Table(title=title)
    for heading in ("part", "trainable", "total", *(() if rates is None else ("learning rate",))):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, trainable, total in counts:
        if rates is None:
            table.add_row(part, f"{trainable:,}" if trainable else "frozen", f"{total:,}")
        else:
            table.add_row(part, f"{trainable:,}", f"{total:,}", f"{rates[part]:.1e}" if trainable else "frozen")
    table.add_section()
    table.add_row("all", f"{sum(row[1] for row in counts):,}", f"{sum(row[2] for row in counts):,}")
    console.print(table)
    for line in training_lines(model, parts, part_of):
        console.print(line, markup=False)


def print_length(console: Console, settings: LoopSettings, steps_per_epoch: int, optimiser: Optimiser) -> None:
    """Print the length of a run in epochs and optimiser steps."""
    total = settings.total_steps(steps_per_epoch)
    epochs, steps = counted(-(-total // steps_per_epoch), "epoch"), counted(steps_per_epoch, "step")
    line = f"{epochs} of {steps}, {counted(total, 'step')} in all; {optimiser.warmup(total)} of warm-up"
    stop = settings.stop_after_epochs
    if stop is not None and stop * steps_per_epoch < total:
        line += f"; stops after {counted(stop, 'epoch')}, at step {stop * steps_per_epoch}"
    console.print(f"length      {line}", markup=False)


def counted(count: int, thing: str) -> str:
    """A number with its noun: `1 step`, `2 steps`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
