"""Checkpoints that survive a crash: written aside, flushed to disk, renamed into place.

checkpoints/last/model.safetensors   every weight of the model
checkpoints/last/training.pt         optimiser, moving average, random states (tensors and numbers only)
checkpoints/last/state.json          position in the run, best score, resolved options, versions
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deixis.errors import TrainingError
from deixis.training.ema import WeightAverage


@dataclass
class Progress:
    """Where a run stands: everything that changes while it goes on, but weights and optimiser.

    Attributes:
        epoch, step_in_epoch: the next step's position in the data.
        step: steps attempted so far, the skipped ones included.
        updates: steps that changed the weights; the learning rate is a function of it.
        skipped, skipped_in_a_row: steps left out for a non-finite loss or gradient.
        best_score, best_epoch: best validation AP so far, -1 before the first.
        epochs_without_gain: for early stopping.
        log_bytes: length of metrics.jsonl at this point.
        finished: nothing is left to do.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    updates: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best_score: float = -1.0
    best_epoch: int = -1
    epochs_without_gain: int = 0
    log_bytes: int = 0
    finished: bool = False

    def count_step(self, updated: bool) -> None:
        """Move on by one step, which changed the weights or was skipped."""
        self.step += 1
        self.step_in_epoch += 1
        self.updates += updated
        self.skipped += not updated
        self.skipped_in_a_row = 0 if updated else self.skipped_in_a_row + 1


@dataclass(frozen=True)
class Identity:
    """What must be the same for a run to go on: its options and its data."""

    options: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def require_same(self, saved: Mapping[str, Any], folder: Path) -> None:
        """Raises TrainingError that names each difference from what a checkpoint saved."""
        current = json.loads(json.dumps({**self.options, **self.facts}, default=str))
        keys = sorted(current.keys() | saved.keys())
        changed = [f"{k} was {saved.get(k)!r}, now {current.get(k)!r}" for k in keys if saved.get(k) != current.get(k)]
        if changed:
            raise TrainingError(
                f"{folder}: belongs to another run ({'; '.join(changed)}); give the same options, "
                "or another --experiment-name"
            )


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Write a folder anew, all or nothing.

    Yields an empty folder beside `folder`. After the block its files are flushed to disk and it takes the place of
    `folder`, whose old content stays as `<name>.previous` until then. A crash at any moment leaves the old or the new
    content, which `recover` finds.
    """
    fresh, previous = folder.with_name(folder.name + ".writing"), folder.with_name(folder.name + ".previous")
    try:
        recover(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        for path in [*fresh.rglob("*"), fresh]:
            _flush(path)
        if folder.exists():
            folder.rename(previous)
        fresh.rename(folder)
        _flush(folder.parent)
        shutil.rmtree(previous, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); the content it had before is kept") from error


def recover(folder: Path) -> bool:
    """Finish what a crash interrupted; whether the folder exists afterwards."""
    previous = folder.with_name(folder.name + ".previous")
    if previous.exists():
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
        else:
            previous.rename(folder)
    return folder.exists()


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    progress: Progress,
    identity: Identity,
) -> None:
    """Write everything that `load_checkpoint` needs to go on as if nothing had happened."""
    training = {
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict() if average else {},
        "average_updates": average.updates if average else 0,
        "random": random_states(),
    }
    state = {
        "progress": asdict(progress),
        "identity": {**identity.options, **identity.facts},
        "versions": versions(),
    }
    with replacing_folder(folder) as fresh:
        save_file(model_tensors(model), fresh / "model.safetensors", metadata={"format": "pt"})
        torch.save(training, fresh / "training.pt")
        (fresh / "state.json").write_text(json.dumps(state, indent=2, default=str), encoding="utf-8")


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    identity: Identity,
) -> Progress:
    """Put a run back to where `save_checkpoint` left it.

    Raises:
        TrainingError: no checkpoint, a damaged one, or one of another run.
    """
    if not recover(folder):
        raise TrainingError(f"{folder}: no checkpoint to resume from; start the run without --resume")
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        progress, saved = Progress(**state["progress"]), state["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder}: not a checkpoint of deixis ({error!r}); start with --overwrite") from error
    identity.require_same(saved, folder)
    try:
        tensors = load_file(folder / "model.safetensors")
        training = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise TrainingError(f"{folder}: damaged ({error!r}); start with --overwrite") from error
    load_model_tensors(model, tensors, folder)
    optimizer.load_state_dict(training["optimizer"])
    if average:
        average.load_state_dict(training["average"], training["average_updates"])
    restore_random_states(training["random"])
    return progress


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a model by name, shared storage once (safetensors wants no sharing)."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel():
            continue
        seen.add(tensor.data_ptr())
        tensors[name] = tensor.detach().contiguous()
    return tensors


def load_model_tensors(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Copy saved tensors into a model; names and shapes must agree in full."""
    wanted = model_tensors(model)
    strange = sorted(wanted.keys() ^ tensors.keys())
    strange += sorted(n for n in wanted.keys() & tensors.keys() if wanted[n].shape != tensors[n].shape)
    if strange:
        raise TrainingError(
            f"{folder}: weights of another model: {len(strange)} of {len(wanted)} tensors differ, first {strange[0]}"
        )
    model.load_state_dict(dict(tensors), strict=False)


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's, torch's and CUDA's generators, as tensors and plain numbers."""
    kind, internal, gauss = random.getstate()
    # The legacy global generator is what third parties draw from; ours are all seeded locally.
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    assert isinstance(numpy_state, dict)
    return {
        "python": [kind, list(internal), gauss],
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put all generators back."""
    kind, internal, gauss = states["python"]
    random.setstate((kind, tuple(internal), gauss))
    saved = states["numpy"]
    numpy_state = ("MT19937", saved["key"].numpy().astype(np.uint32), saved["pos"], saved["has_gauss"], saved["gauss"])
    np.random.set_state(numpy_state)  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("deixis", "torch", "transformers", "accelerate", "peft", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
