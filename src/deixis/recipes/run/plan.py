"""The plan of a run as it is printed before training, and by a dry run: what trains, how fast, and for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from deixis.console import Console
from deixis.options.groups import Optimiser
from deixis.training.loop import LoopSettings


def print_parts(
    console: Console, title: str, counts: Sequence[tuple[str, int, int]], rates: Mapping[str, float] | None = None
) -> None:
    """Print the parameters of each part of a model.

    Args:
        counts: (part, trainable, all) parameters, in the order of the network.
        rates: learning rate of each part, where they differ.
    """
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
