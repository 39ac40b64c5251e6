"""Tasks of an edited detector: listed, added, removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from deixis.console import print_text
from deixis.errors import OptionError
from deixis.models.checkpoints import DetectorBundle, detector_folder, load_any_detector, save_detector
from deixis.models.edits.files import (
    BASE,
    Task,
    is_edited,
    read_first,
    read_first_names,
    read_task,
    task_files,
    write_edits,
)
from deixis.models.folders import staged_folder
from deixis.models.model_card import write_card
from deixis.options.model_merge import ModelEditAddOptions, ModelEditListOptions, ModelEditRemoveOptions


def list_edits(options: ModelEditListOptions) -> None:
    """Print the names of the tasks.

    Raises:
        DeixisError: it is no edited model.
    """
    folder = edited_folder(options.model)
    for name, path in task_files(folder).items():
        print_text(f"{name}  {path.stat().st_size / 1e6:.1f} MB  {path}")
    if not task_files(folder):
        print_text(f"{folder}: no task; its weights are the first ones")


def add_edits(options: ModelEditAddOptions) -> None:
    """Write a model with tasks added.

    Raises:
        DeixisError: a task belongs to another model or is there already, or the model cannot be read or written.
    """
    options.check()
    require_new(options.output)
    bundle = load_any_detector(options.model)
    folder = detector_folder(options.model)
    first = read_first(folder, bundle)
    tasks = read_tasks(folder, first)
    for name, path in named_tasks(options.tasks).items():
        if name in tasks:
            raise OptionError(
                f"--tasks: {options.model} has a task {name!r} already; remove it first, or rename {path}"
            )
        tasks[name] = read_task(path, first)
    write_edited(bundle, options.output, first, tasks, first_names=read_first_names(folder, bundle))


def remove_edits(options: ModelEditRemoveOptions) -> None:
    """Write a model without some of its tasks.

    Raises:
        DeixisError: it has no such task, or the model cannot be read or written.
    """
    options.check()
    require_new(options.output)
    folder = edited_folder(options.model)
    there = task_files(folder)
    if unknown := [name for name in options.tasks if name not in there]:
        raise OptionError(f"--tasks: {folder} has no task {unknown[0]!r}; it has {', '.join(there) or 'none'}")
    bundle = load_any_detector(folder)
    first = read_first(folder, bundle)
    tasks = {name: task for name, task in read_tasks(folder, first).items() if name not in options.tasks}
    write_edited(bundle, options.output, first, tasks, first_names=read_first_names(folder, bundle))


def edited_folder(model: str) -> Path:
    """The folder of an edited model; that of a hub id is downloaded.

    Raises:
        ModelError: there is no model.
        OptionError: the model has no edits.
    """
    folder = detector_folder(model)
    if not is_edited(folder):
        raise OptionError(f"--model: {model} has no edits/; 'detect train --keep edit' and 'model edit add' write them")
    return folder


def named_tasks(given: Sequence[Path]) -> dict[str, Path]:
    """Files of tasks by name; an edited model stands for all of its tasks.

    Raises:
        OptionError: there is no such file, a folder has no task, or two tasks have one name.
    """
    found: dict[str, Path] = {}
    for path in given:
        if path.is_dir():
            files = task_files(edited_folder(str(path)))
        elif path.is_file():
            files = {path.stem: path}
        else:
            raise OptionError(f"--tasks: {path} does not exist; name the file of a task, or an edited model")
        for name, file in files.items():
            if name in found or name == BASE:
                raise OptionError(f"--tasks: {file} and another task are both called {name!r}; rename one of the files")
            found[name] = file
    return found


def read_tasks(folder: Path, first: Mapping[str, Tensor]) -> dict[str, Task]:
    """The tasks that a model has, by name."""
    return {name: read_task(path, first) for name, path in task_files(folder).items()}


def require_new(path: Path) -> None:
    """Raises OptionError for a path that exists."""
    if path.exists():
        raise OptionError(f"--output: {path} exists; name something that does not")


def write_edited(
    bundle: DetectorBundle,
    output: Path,
    first: Mapping[str, Tensor],
    tasks: Mapping[str, Task],
    *,
    first_names: Sequence[str],
) -> None:
    """Write the model with its tasks, all or nothing, and print what it has.

    Its class names are those of the first model and of every task. Thresholds, calibration and sinks stay behind: they
    were chosen for other weights.
    """
    names = dict.fromkeys([*first_names, *(name for task in sorted(tasks) for name in tasks[task].names)])
    wordings = {name: words for name, words in bundle.record.wordings.items() if name in names}
    record = replace(
        bundle.record,
        names=tuple(names),
        wordings=wordings,
        thresholds={},
        class_thresholds={},
        calibration={},
        sinks={},
    )
    bundle = replace(bundle, sinks=None, record=record)
    with staged_folder(output) as draft:
        write_edits(bundle, draft, first, tasks, first_names=first_names)
        save_detector(bundle, draft)
        write_card(draft, output.name)
    print_text(f"wrote {output}: {', '.join(sorted(tasks)) or 'no task, the first weights'}")
