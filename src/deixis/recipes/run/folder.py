"""The folder of a run: recognised, made, or moved aside. Nothing in it that a run did not write is touched.

<output>/<experiment-name>/
    .deixis-run.json     the mark of a run's own folder
    config.yaml          the resolved options
    metrics.jsonl        one line per step, skipped step and evaluation
    tensorboard/
    metric_services.json what wandb and mlflow call the run, where they are used
    checkpoints/last     everything needed to resume
    checkpoints/best     the weights with the best validation score
    teachers/            those weights under the name other tools look for
    report.html
    result.json          figures before training, of the best epoch and of the last, on validation and on test data
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deixis.atomic_files import file_aside
from deixis.errors import TrainingError
from deixis.options.groups import Run
from deixis.options.yaml_files import write_values
from deixis.recipes.run.outputs import warn
from deixis.training.checkpoint import exists_or_interrupted

MARK = ".deixis-run.json"
CONTENT = (
    *("config.yaml", "metrics.jsonl", "tensorboard", "metric_services.json", "checkpoints", "teachers"),
    *("forgetting.json", "report.html", "result.json", "seeds.json", "seeds.html"),
)
_MODELS = ("best", "last", "kept", "grounding_dino", "grounding_dino_lora", "sa2va", "sa2va_lora")
_DRAFT = re.compile(rf"\.+({'|'.join(map(re.escape, (*_MODELS, *CONTENT)))})(\.writing)?\.\d+\.tmp")


def will_resume(run: Run) -> bool:
    """Whether a run resumes from `checkpoints/last`. Changes nothing.

    A run that torchrun started again (`--max-restarts`) resumes whatever its options say.

    Raises:
        TrainingError: it should resume and there is no checkpoint, or it should not and would replace a run; or the
            folder holds files that no run wrote.
    """
    folder = run.folder
    try:
        found = require_own(folder)
        exists = bool(found) and exists_or_interrupted(folder / "checkpoints" / "last")
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be used ({error}); choose another --output") from error
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0) > 0:
        return exists
    if run.resume and not exists:
        older = folder / run.default_name  # where --output alone led before it named the folder of the run itself
        hint = f"give --experiment-name {older.name}" if is_run(older) else "leave out --resume"
        raise TrainingError(f"{folder}/checkpoints/last: no checkpoint to resume from; {hint}")
    resuming = exists and (run.resume or run.auto_resume)
    if found and not (resuming or run.overwrite or run.auto_resume):
        raise TrainingError(
            f"{folder}: holds a run already; give --resume to resume it, --overwrite to move it aside, "
            "or another --experiment-name"
        )
    return resuming


def prepare_folder(run: Run, config: Mapping[str, Any], resuming: bool) -> Path:
    """Make the folder, move an earlier run aside unless it is resumed, and check that it can be written.

    Args:
        config: the resolved options as plain values, for `config.yaml`.

    Raises:
        TrainingError: it cannot.
    """
    folder = run.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = [] if resuming else content_of(folder)
        if found and (run.overwrite or not _has_begun_only(folder, found)):
            aside = move_aside(folder, [*found, MARK])
            reason = "" if run.overwrite else ", which has no checkpoint to resume from,"
            warn(f"the earlier run in {folder}{reason} was moved to {aside}")
        # The mark before the rest: a run that is killed now is still known as one, and may be replaced.
        write_mark(folder)
        if not resuming:
            write_values(config, folder / "config.yaml")
        remove_drafts(folder)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); choose another --output") from error
    return folder


def keep_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write the options with which a run is resumed, so that it can be resumed again.

    Raises:
        TrainingError: they cannot be written.
    """
    try:
        with file_aside(folder / "config.yaml") as draft:
            write_values({**config, "resume": False}, draft)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); free some space, then give --resume") from error


def require_own(folder: Path) -> list[str]:
    """What stands in a folder under a run's names, all of it a run's own.

    Raises:
        TrainingError: it is not.
        OSError: the folder cannot be read.
    """
    found = content_of(folder)
    if found and not (is_run(folder) or any(map(is_run, folder.glob("seed_*")))):
        raise TrainingError(
            f"{folder}: holds {', '.join(found)}, which no run of deixis wrote; choose another --output or "
            "--experiment-name, or move them away"
        )
    return found


def _has_begun_only(folder: Path, found: list[str]) -> bool:
    """Whether a marked run was stopped before its first checkpoint: a log and options that a new start replaces."""
    checkpoints = folder / "checkpoints"
    saved = [path for path in checkpoints.iterdir() if path.name[0] != "."] if checkpoints.is_dir() else []
    first = {"config.yaml", "metrics.jsonl", "tensorboard", "metric_services.json", "checkpoints"}
    return (folder / MARK).is_file() and set(found) <= first and not saved


def write_mark(folder: Path) -> None:
    """Say that a run made this folder, unless it says so already."""
    if not (folder / MARK).exists():
        mark = {"written_by": "deixis", "started": time.strftime("%Y-%m-%d %H:%M:%S")}
        (folder / MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")


def content_of(folder: Path) -> list[str]:
    """What stands in a folder under the names that a run writes; empty folders do not count."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError("is a file")
    return [name for name in CONTENT if _has_content(folder / name)]


def _has_content(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return path.is_symlink() or path.exists()
    return any(path.iterdir())


def is_run(folder: Path) -> bool:
    """Whether a run made this folder: it has the mark, or, from before there was one, options and a run's log."""
    if (folder / MARK).is_file():
        return True
    try:
        with (folder / "metrics.jsonl").open(encoding="utf-8") as file:
            first = file.readline(1 << 20)  # of a large file without line ends, no more than this
        record = json.loads(first) if first.strip() else {"kind": "", "step": 0}  # stopped before its first line
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"kind", "step"} <= record.keys() and (folder / "config.yaml").is_file()


def move_aside(folder: Path, names: list[str]) -> Path:
    """Move entries of a folder into a new one beside it: `<folder>.bak`, `<folder>.bak1`, and so on."""
    folder = folder.resolve()
    number = 0
    while True:
        aside = folder.with_name(f"{folder.name}.bak{number or ''}")
        try:
            # Making the folder is the test: of two runs, one succeeds.
            aside.mkdir()
            break
        except FileExistsError:
            number += 1
    for name in names:
        if (folder / name).exists() or (folder / name).is_symlink():
            (folder / name).rename(aside / name)
    return aside


def remove_drafts(folder: Path) -> None:
    """Delete what a killed run of this folder left half-written: `.best.1234.tmp` and the like, in its own places."""
    for place in (".", "checkpoints", "teachers"):
        for path in (folder / place).glob(".*.tmp"):
            if not _DRAFT.fullmatch(path.name) or path.is_symlink():
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def as_text(values: dict[str, Any]) -> dict[str, str]:
    """Values as a report shows them."""
    return {name.replace("_", " "): str(value) for name, value in values.items()}
