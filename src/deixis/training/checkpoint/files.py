"""Checkpoints: every weight, the optimiser, the moving average and random states, saved and restored bit for bit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deixis.errors import TrainingError
from deixis.text import one_line
from deixis.training.checkpoint.checks import require_average, require_optimizer_state
from deixis.training.checkpoint.progress import Identity, Progress
from deixis.training.checkpoint.random_states import random_states, require_random_states, restore_random_states
from deixis.training.checkpoint.replace import replacing_folder
from deixis.training.checkpoint.state import (
    MODEL,
    STATE,
    TRAINING,
    digests_of,
    read_progress,
    weight_files,
    write_state,
)
from deixis.training.ema import WeightAverage


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    average: WeightAverage | None,
    progress: Progress,
    identity: Identity,
) -> None:
    """Write everything that `load_checkpoint` needs to continue bit for bit.

    Raises:
        TrainingError: the folder cannot be written.
    """
    training = {
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict() if average else {},
        "average_updates": average.updates if average else 0,
        "random": random_states(),
    }
    with replacing_folder(folder) as fresh:
        save_file(model_tensors(model), fresh / MODEL, metadata={"format": "pt"})
        _save_tensors(training, fresh / TRAINING)
        write_state(fresh, progress, identity, digests=digests_of(fresh))


def save_progress(folder: Path, progress: Progress, identity: Identity) -> None:
    """Write only the position, next to the weights that `save_checkpoint` wrote just before.

    For changes without a step: after an evaluation the weights are still those of the checkpoint.

    Raises:
        TrainingError: there is no checkpoint, or it cannot be written.
    """
    with replacing_folder(folder) as fresh:
        # hard links cost nothing; the weights may be gigabytes
        digests = json.loads((folder / STATE).read_text(encoding="utf-8"))["sha256"]
        names = weight_files(folder)
        for name in names:
            (fresh / name).parent.mkdir(exist_ok=True)
            try:
                os.link(folder / name, fresh / name)
            except OSError:  # a file system without links
                shutil.copyfile(folder / name, fresh / name)
        write_state(fresh, progress, identity, digests={name: digests[name] for name in names})


def _save_tensors(values: dict[str, Any], path: Path) -> None:
    """`torch.save`, with an OSError for a full disk, for which torch raises a RuntimeError."""
    try:
        torch.save(values, path)
    except RuntimeError as error:
        raise OSError(f"{path.name}: {one_line(error, 120)}") from error


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    average: WeightAverage | None,
    identity: Identity,
) -> Progress:
    """Restore a run to where `save_checkpoint` left it.

    Everything is checked before anything is loaded, so an error leaves the run as it was.

    Raises:
        TrainingError: there is no checkpoint, it is damaged, or it belongs to another run.
    """
    progress = read_progress(folder, identity)
    try:
        tensors = load_file(folder / MODEL)
        # weights_only: a pickle could execute code
        training = torch.load(folder / TRAINING, map_location="cpu", weights_only=True)
        require_same_tensors(model, tensors, folder)
        require_optimizer_state(optimizer, training["optimizer"])
        require_random_states(training["random"])
        if average:
            require_average(average.state_dict(), training["average"], training["average_updates"])
        model.load_state_dict(dict(tensors), strict=False)  # a shared tensor is saved once
        optimizer.load_state_dict(training["optimizer"])
        if average:
            average.load_state_dict(training["average"], training["average_updates"])
        restore_random_states(training["random"])
    except TrainingError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise TrainingError(f"{folder}: damaged ({reason}); start with --overwrite") from error
    return progress


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a model by name, shared storage once: safetensors does not allow sharing."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel():  # empty tensors all have the address 0
            continue
        seen.add(tensor.data_ptr())
        tensors[name] = tensor.detach().contiguous()  # safetensors takes no strided views
    return tensors


def require_same_tensors(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Raises TrainingError unless the saved tensors have exactly the model's names and shapes."""
    wanted = model_tensors(model)
    different = sorted(wanted.keys() ^ tensors.keys())
    different += sorted(n for n in wanted.keys() & tensors.keys() if wanted[n].shape != tensors[n].shape)
    if different:
        raise TrainingError(
            f"{folder}: weights of another model: {len(different)} of {len(wanted)} tensors differ, "
            f"the first is {different[0]}"
        )
