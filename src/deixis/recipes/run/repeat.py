"""A run repeated with several seeds: one figure is a draw, several show how far to trust it.

<output>/<experiment-name>/
    config.yaml          the options that repeat it all
    seed_0/, seed_1/ ... a whole run each
    seeds.json           the figures of each, their mean and spread
    seeds.html           the same as a page
    teachers/            of detectors: the average of the seeds, or the best of them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from rich.table import Table

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.errors import TrainingError
from deixis.options.groups import Run
from deixis.options.yaml_files import write_options
from deixis.recipes.run.folder import require_own, write_mark
from deixis.reporting.outcome import Outcome
from deixis.reporting.seeds import SUMMARY, SeedTable, seed_table, write_seeds_page
from deixis.training.processes import is_first_process


@runtime_checkable
class Finished(Protocol):
    """What a run returns."""

    @property
    def outcome(self) -> Outcome | None: ...


Options = TypeVar("Options", bound=Run)


@dataclass(frozen=True)
class RepeatResult:
    """What repeated runs came to.

    Attributes:
        folder: of them all.
        outcomes: by seed; empty after a dry run.
        table: mean and spread of the figures; None after a dry run.
    """

    folder: Path
    outcomes: dict[int, Outcome]
    table: SeedTable | None


def repeat_run(
    options: Options,
    run: Callable[[Options], Finished],
    names: Sequence[str],
    keep: Callable[[Any, Path, Mapping[int, Any]], str] | None = None,
) -> RepeatResult:
    """Run once for each seed, on the same split of the data, and report mean and spread.

    Resumed, seeds that are finished do no step, and the interrupted one resumes from its checkpoint.

    Args:
        run: `finetune` or `finetune_segmenter`.
        names: metrics of the table.
        keep: makes one model of the runs, by seed, in their folder, and says which; every process calls it.

    Raises:
        DeixisError: as `run`; or there is nothing to resume.
        Terminated: SIGTERM came and the run at hand was saved.
    """
    options.check()
    folder = options.folder
    console = Console(quiet=not is_first_process(), highlight=False, soft_wrap=True)
    seeds = range(options.seed, options.seed + options.seeds)
    runs = {seed: _options_of(options, folder, seed) for seed in seeds}
    if options.resume and not any(one.folder.exists() for one in runs.values()):
        raise TrainingError(f"{folder}: no run of these seeds to resume from; leave out --resume")
    if (folder / "metrics.jsonl").exists():  # of this folder itself; those of seeds are one level below
        raise TrainingError(f"{folder}: holds a run of one seed; choose another --experiment-name for {len(seeds)}")
    require_own(folder)
    if options.dry_run:
        run(runs[options.seed])
        console.print(f"{options.seeds} runs like this, with the seeds {seeds[0]} to {seeds[-1]}", markup=False)
        return RepeatResult(folder, {}, None)
    if is_first_process():
        keep_options(options, folder)
    finished: dict[int, Finished] = {}
    for number, (seed, own) in enumerate(runs.items(), start=1):
        console.rule(f"seed {seed}, run {number} of {len(runs)}")
        finished[seed] = run(own)
    outcomes = {seed: _outcome(one) for seed, one in finished.items()}
    table = seed_table(outcomes, names)
    if is_first_process():
        write_atomic(folder / "seeds.json", json.dumps(as_dict(table, outcomes), indent=2) + "\n")
        write_seeds_page(folder / "seeds.html", folder.name, table)
    print_seeds(console, table)
    if keep is not None:
        console.print(keep(options, folder, finished), markup=False)
    console.print(f"seeds   {folder / 'seeds.html'}", markup=False)
    return RepeatResult(folder, outcomes, table)


def keep_options(options: Run, folder: Path) -> None:
    """Write `config.yaml`, by which the whole can be resumed.

    Raises:
        TrainingError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_mark(folder)
        write_options(options, folder / "config.yaml")
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); choose another --output") from error


def print_seeds(console: Console, table: SeedTable) -> None:
    """Print mean and spread of each figure; the figures of each seed are in the page and the JSON."""
    shown = Table(title=f"{len(table.rows)} seeds, {table.title}")
    for heading in ("", *SUMMARY.values()):
        shown.add_column(heading, justify="right" if heading else "left")
    for name, figures in table.statistics.items():
        shown.add_row(name, *(f"{figures[key]:.4f}" for key in SUMMARY))
    console.print(shown)
    for line in table.warnings:
        console.print(line, markup=False)


def as_dict(table: SeedTable, outcomes: dict[int, Outcome]) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "reported_on": table.reported_on,
        "statistics": table.statistics,
        "warnings": list(table.warnings),
        "seeds": {str(seed): outcome.as_dict() for seed, outcome in outcomes.items()},
    }


def _options_of(options: Options, folder: Path, seed: int) -> Options:
    """The options of one seed's run. Resumed, it resumes or starts."""
    return replace(
        options,
        output=folder,
        experiment_name=f"seed_{seed}",
        seed=seed,
        seeds=1,
        resume=False,
        auto_resume=options.resume or options.auto_resume,
    )


def _outcome(finished: Finished) -> Outcome:
    assert finished.outcome is not None  # dry runs do not come here
    return finished.outcome
