"""Edited model folders: a model, its first weights, and a file for each task that was added.

model.safetensors ...       the edited model, as any other
edits/base.safetensors      the weights of the edited layers before any task, and the class names of that model
edits/NAME.safetensors      a task: the statistics of `closed_form`, upper triangles in float32, and its class names
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.checkpoints import DetectorBundle
from deixis.models.edits.closed_form import LayerTask, edit, edited_layers
from deixis.models.folders import require_file
from deixis.text import one_line

FOLDER, BASE, SUFFIX = "edits", "base", ".safetensors"


@dataclass(frozen=True)
class Task:
    """What one fine-tuning adds to a model.

    Attributes:
        layers: the statistics of every edited layer.
        names: the class names that it was trained on.
    """

    layers: Mapping[str, LayerTask]
    names: tuple[str, ...] = ()


def first_weights(bundle: DetectorBundle) -> dict[str, Tensor]:
    """The weights of the layers that are edited, as they are now, on the CPU."""
    return {name: layer.weight.detach().cpu().clone() for name, layer in edited_layers(bundle.model).items()}


def digest(first: Mapping[str, Tensor]) -> str:
    """What tasks and models are compared by: tasks can be added only where they started from the same weights."""
    found = hashlib.sha256()
    for name in sorted(first):
        found.update(name.encode())
        found.update(first[name].float().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def write_edits(
    bundle: DetectorBundle,
    folder: Path,
    first: Mapping[str, Tensor],
    tasks: Mapping[str, Task],
    *,
    first_names: Sequence[str] = (),
) -> None:
    """Write first weights and tasks into a model's folder; `bundle` gets the weights that they solve to, in place."""
    solved = edit(
        first, [tasks[name].layers for name in sorted(tasks)]
    )  # one order: the same bits however they were added
    with torch.no_grad():
        for name, layer in edited_layers(bundle.model).items():
            layer.weight.copy_(solved[name])
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in first.items()}
    save_file(weights, folder / FOLDER / f"{BASE}{SUFFIX}", metadata={"names": json.dumps(list(first_names))})
    for name, task in tasks.items():
        write_task(folder / FOLDER / f"{name}{SUFFIX}", task, digest(first))


def write_task(path: Path, task: Task, base: str) -> None:
    """Write a task; `base` is the digest of the first weights."""
    tensors = {}
    for name, layer in task.layers.items():
        rows, columns = torch.triu_indices(*layer.gram.shape)
        tensors[f"{name}.gram"] = layer.gram[rows, columns].float().contiguous()
        tensors[f"{name}.change"] = layer.change.float().contiguous()
    save_file(tensors, path, metadata={"base": base, "names": json.dumps(task.names)})


def read_task(path: Path, first: Mapping[str, Tensor]) -> Task:
    """A task for a model with these first weights.

    Raises:
        ModelError: it cannot be read, or belongs to another model.
    """
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        names, tensors = _names_in(metadata), load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read as a task ({one_line(error, 200)}); write it again") from error
    if metadata.get("base") != digest(first):
        raise ModelError(f"{path}: a task of another model; add it to the model that its training started from")
    return Task({name: _layer_of(path, name, weight, tensors) for name, weight in first.items()}, names)


def _names_in(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Class names in a file's metadata; files of before they were stored have none.

    Raises:
        ValueError: they are no list.
    """
    names = json.loads(metadata.get("names", "[]"))
    if not isinstance(names, list):
        raise ValueError(f"its names are {names!r}, not a list")
    return tuple(str(name) for name in names)


def read_first_names(folder: Path, bundle: DetectorBundle) -> tuple[str, ...]:
    """The class names of the model before any task: its own where it has none.

    Raises:
        ModelError: they cannot be read.
    """
    if not is_edited(folder):
        return tuple(bundle.record.names)
    path = folder / FOLDER / f"{BASE}{SUFFIX}"
    try:
        with safe_open(path, framework="pt") as file:
            return _names_in(file.metadata() or {})
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({one_line(error, 200)}); write the model again") from error


def _layer_of(path: Path, name: str, weight: Tensor, tensors: Mapping[str, Tensor]) -> LayerTask:
    d_out, d_in = weight.shape
    packed, change = tensors.get(f"{name}.gram"), tensors.get(f"{name}.change")
    if packed is None or change is None or len(packed) != d_in * (d_in + 1) // 2 or change.shape != (d_in, d_out):
        raise ModelError(f"{path}: has no statistics of {name} for {d_in} inputs and {d_out} outputs; write it again")
    rows, columns = torch.triu_indices(d_in, d_in)
    gram = torch.zeros(d_in, d_in, dtype=torch.float64)
    gram[rows, columns] = packed.double()
    gram[columns, rows] = packed.double()
    return LayerTask(gram, change.double())


def is_edited(folder: Path) -> bool:
    """Whether a model folder has edits."""
    return (folder / FOLDER / f"{BASE}{SUFFIX}").is_file()


def task_files(folder: Path) -> dict[str, Path]:
    """The tasks of an edited model folder, by name."""
    found = sorted((folder / FOLDER).glob(f"*{SUFFIX}")) if (folder / FOLDER).is_dir() else []
    return {path.stem: path for path in found if path.stem != BASE}


def read_first(folder: Path, bundle: DetectorBundle) -> dict[str, Tensor]:
    """The weights before any task: those in `edits/`, or the model's own where it has none.

    Raises:
        ModelError: they cannot be read, or do not fit the model.
    """
    own = first_weights(bundle)
    if not is_edited(folder):
        return own
    path = folder / FOLDER / f"{BASE}{SUFFIX}"
    try:
        first: dict[str, Tensor] = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({one_line(error, 200)}); write the model again") from error
    if {name: tensor.shape for name, tensor in first.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise ModelError(f"{path}: belongs to another model; write the model again")
    return first
