"""The folder of a run: made, kept, or replaced, and what stands in it.

<output>/<experiment-name>/
    config.yaml          the resolved options
    metrics.jsonl        one line a step, a skipped step and an evaluation
    tensorboard/
    checkpoints/last     everything to go on from
    checkpoints/best     the weights with the best validation AP
    teachers/            those weights under the name other tools look for
    report.html
    result.json          figures before training, of the best epoch and of the last, on validation and on test data
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from deixis.errors import TrainingError
from deixis.recipes.files import write_options
from deixis.training.checkpoint import recover

CONTENT = (
    *("config.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "teachers"),
    *("forgetting.json", "report.html", "result.json"),
)


@runtime_checkable
class RunOptions(Protocol):
    """The options that say where a run writes and what becomes of an earlier one."""

    @property
    def output(self) -> Path: ...
    @property
    def experiment_name(self) -> str: ...
    @property
    def resume(self) -> bool: ...
    @property
    def auto_resume(self) -> bool: ...
    @property
    def overwrite(self) -> bool: ...


def will_resume(options: RunOptions) -> bool:
    """Whether a run goes on from `checkpoints/last`.

    Raises:
        TrainingError: it should and there is none, or it should not and would overwrite one.
    """
    folder = run_folder(options)
    try:
        exists = recover(folder / "checkpoints" / "last")
        begun = exists or (folder / "metrics.jsonl").exists()
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be used ({error}); choose another --output") from error
    if options.resume and not exists:
        raise TrainingError(f"{folder}/checkpoints/last: no checkpoint to resume from; leave out --resume")
    resuming = exists and (options.resume or options.auto_resume)
    if begun and not (resuming or options.overwrite or options.auto_resume):
        raise TrainingError(
            f"{folder}: holds a run already; give --resume to go on with it, --overwrite to replace it, "
            "or another --experiment-name"
        )
    return resuming


def prepare_folder(options: RunOptions, resuming: bool) -> Path:
    """Make the folder, empty it of an earlier run unless that is resumed, and see that it can be written.

    Raises:
        TrainingError: it cannot.
    """
    folder = run_folder(options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not resuming:
            for name in CONTENT:
                remove(folder / name)
            write_options(options, folder / "config.yaml")
        elif not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); choose another --output") from error
    return folder


def run_folder(options: RunOptions) -> Path:
    """Where a run writes."""
    return options.output / options.experiment_name


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def as_text(values: dict[str, Any]) -> dict[str, str]:
    """Values as a report shows them."""
    return {name.replace("_", " "): str(value) for name, value in values.items()}
