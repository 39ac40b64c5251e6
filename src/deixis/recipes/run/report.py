"""The part of a run's report that is the same for every model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deixis.recipes.run.folder import as_text
from deixis.recipes.run.training import OpenRun
from deixis.reporting.metrics_file import read_curves
from deixis.reporting.outcome import Outcome
from deixis.reporting.run_report import RunFacts
from deixis.training.checkpoint import versions


def spread_indices(count: int, size: int) -> list[int]:
    """At most `count` positions, spread evenly over `size`.

    >>> spread_indices(3, 9), spread_indices(3, 2)
    ([0, 4, 8], [0, 1])
    """
    return [int(index) for index in np.linspace(0, size - 1, min(count, size)).round()]


def run_facts(
    opened: OpenRun,
    policy: Sequence[str],
    parameters: Sequence[tuple[str, int, int]],
    outcome: Outcome,
    *,
    seconds: float,
    took: Mapping[str, Any],
) -> RunFacts:
    """What the report of a finished run shows of it.

    Args:
        policy: names of the options that make the recipe.
        parameters: (part of the model, trainable, all) parameter counts.
        seconds: from start to end.
        took: what else the run took, by name.
    """
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    facts = {"minutes": f"{seconds / 60:.1f}", **took, "seed": opened.config["seed"], "command": command, **versions()}
    chosen = {name: opened.config[name] for name in policy}
    return RunFacts(
        title=opened.folder.name,
        model=opened.config["model"],
        outcome=outcome,
        policy=as_text({name: ", ".join(v) if isinstance(v, list) else v for name, v in chosen.items()}),
        parameters=parameters,
        curves=read_curves(opened.folder / "metrics.jsonl"),
        facts=as_text(facts),
    )
