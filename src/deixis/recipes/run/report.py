"""The end of a run, the same for every model: its best weights under their lasting name, its report, its figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deixis.recipes.run.ending import kept_weights
from deixis.recipes.run.folder import as_text
from deixis.recipes.run.result import keep_result
from deixis.recipes.run.training import OpenRun
from deixis.reporting.metrics_file import read_curves, read_outcome
from deixis.reporting.outcome import Outcome
from deixis.reporting.run_report import RunFacts, TaskFacts, write_run_report
from deixis.training.checkpoint import versions
from deixis.training.processes import broadcast_from_first


def finish_run(
    opened: OpenRun,
    teacher: Path,
    shown: Sequence[str],
    *,
    keep: Callable[[Path], None],
    facts: Callable[[Outcome], TaskFacts],
    policy: Sequence[str],
    parameters: Sequence[tuple[str, int, int]],
    took: Mapping[str, str],
    lines: Callable[[Outcome], Sequence[str]] = lambda _: (),
) -> Outcome:
    """Write the best weights and the report of a run that is trained, and print what it came to.

    Args:
        teacher: the folder of the best weights.
        shown: metrics to print; the first is the score that chose the best weights.
        keep: writes `teacher`, given the weights in `checkpoints` that are kept; the first process calls it.
        facts: what the report shows of the task.
        policy: names of the options that make the recipe.
        parameters: (part of the model, trainable, all) parameter counts.
        took: what the run took, by name.
        lines: more to print.
    """
    accelerator, console, folder = opened.accelerator, opened.console, opened.folder
    # The first process has the log; all return the same outcome.
    found = read_outcome(folder / "metrics.jsonl", shown[0]) if opened.is_first else None
    outcome = broadcast_from_first(accelerator, found)
    assert outcome is not None
    if opened.is_first:
        keep(kept_weights(folder))
        if opened.config["report"] and outcome.reported(outcome.best) is not None:
            run = run_facts(opened, policy, parameters, outcome, took=took)
            write_run_report(folder / "report.html", run, facts(outcome))
        keep_result(
            folder,
            teacher,
            outcome,
            bool(opened.config.get("calibrate")),
            config=opened.config,
            images=opened.training_images,
        )
    for line in (*outcome.lines(shown), *lines(outcome), f"weights {teacher}"):
        console.print(line, markup=False)
    if (folder / "report.html").exists():
        console.print(f"report  {folder / 'report.html'}", markup=False)
    accelerator.wait_for_everyone()
    return outcome


def run_facts(
    opened: OpenRun,
    policy: Sequence[str],
    parameters: Sequence[tuple[str, int, int]],
    outcome: Outcome,
    *,
    took: Mapping[str, str],
) -> RunFacts:
    """What the report of a finished run shows of it; see `finish_run`."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    minutes = f"{(time.perf_counter() - opened.started) / 60:.1f}"
    facts = {"minutes": minutes, **took, "seed": opened.config["seed"], "command": command, **versions()}
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
