"""Checkpoints that survive a crash: written to a temporary folder, flushed to disk, renamed into place.

checkpoints/last/model.safetensors   every weight of the model
checkpoints/last/training.pt         optimiser, moving average, random states (tensors and numbers only)
checkpoints/last/state.json          position in the run, best score, resolved options, versions, SHA-256 digests
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deixis.errors import TrainingError
from deixis.file_modes import give_user_mode
from deixis.text import one_line
from deixis.training.checkpoint_checks import (
    numpy_state,
    require_average,
    require_optimizer_state,
    require_random_states,
)
from deixis.training.ema import WeightAverage

MODEL, TRAINING, STATE = "model.safetensors", "training.pt", "state.json"
SHARDS = "shards"  # in place of the first two where the model is divided among processes
_STATE_FIELDS = {"progress", "identity", "versions"}
LENGTHS = ("epochs", "max_steps", "stop_after_epochs", "early_stopping_patience")
"""Options that set the length of a run; they may be raised when it resumes."""


LEVEL_EPOCHS, MIN_FALL = 3, 0.01
"""A loss has stopped falling after this many epochs whose mean was not lower than the lowest by this share."""


@dataclass
class Progress:
    """The position of a run: everything that changes during it, except weights and optimiser.

    Attributes:
        epoch, step_in_epoch: the next step's position in the data.
        step: steps so far, including skipped ones.
        updates: steps that changed the weights; the learning rate is a function of it.
        skipped, skipped_in_a_row: steps skipped because of a non-finite loss or gradient.
        best_score, best_epoch: best validation AP so far, -1 before the first.
        loss_sum: of the losses of this epoch's steps.
        lowest_loss: the lowest mean loss of an epoch, -1 before the first.
        level_epochs: epochs since then, which were less than 1 % below it.
        epochs_without_gain: evaluations since the best one, for early stopping.
        log_bytes: length of metrics.jsonl at this point.
        finished: whether the run is complete.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    updates: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best_score: float = -1.0
    best_epoch: int = -1
    loss_sum: float = 0.0
    lowest_loss: float = -1.0
    level_epochs: int = 0
    epochs_without_gain: int = 0
    log_bytes: int = 0
    finished: bool = False

    def count_step(self, updated: bool) -> None:
        """Count a step that changed the weights (`updated`) or was skipped."""
        self.step += 1
        self.step_in_epoch += 1
        self.updates += updated
        self.skipped += not updated
        self.skipped_in_a_row = 0 if updated else self.skipped_in_a_row + 1

    def end_epoch(self) -> bool:
        """Count an epoch, once; whether the loss has stopped falling for `LEVEL_EPOCHS` epochs."""
        if self.loss_sum > 0:
            mean = self.loss_sum / max(self.step_in_epoch, 1)
            falls = self.lowest_loss < 0 or mean < (1 - MIN_FALL) * self.lowest_loss
            self.lowest_loss = mean if falls else self.lowest_loss
            self.level_epochs = 0 if falls else self.level_epochs + 1
            self.loss_sum = 0.0
        return self.level_epochs >= LEVEL_EPOCHS


@dataclass(frozen=True)
class Identity:
    """What must be unchanged for a run to resume: its options and its data.

    Attributes:
        defaults: the options' defaults, for options that did not exist when a checkpoint was written.
        current_names: maps the saved options to the names that options have today.
    """

    options: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    current_names: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict

    def require_same(self, saved: Mapping[str, Any], folder: Path, progress: Progress) -> Progress:
        """Check a checkpoint's options and data against this run's.

        A longer run is allowed, also for a finished one: it resumes with the schedule of the new length.

        Returns:
            The progress, no longer finished if the run is longer.

        Raises:
            TrainingError: names each difference.
        """
        # As JSON gives them back (tuples as lists, paths as text): only so can they equal what was saved.
        current = json.loads(json.dumps({**self.options, **self.facts}, default=str))
        saved = {**json.loads(json.dumps(self.defaults, default=str)), **self.current_names(saved)}
        longer = {name for name in LENGTHS if _is_longer(name, current.get(name), saved.get(name))}
        keys = sorted((current.keys() | saved.keys()) - longer)
        changed = [f"{k} was {saved.get(k)!r}, now {current.get(k)!r}" for k in keys if saved.get(k) != current.get(k)]
        if changed:
            raise TrainingError(
                f"{folder}: belongs to another run ({'; '.join(changed)}); use the same options, "
                "or another --experiment-name"
            )
        return replace(progress, finished=False) if longer else progress


def _is_longer(name: str, now: Any, before: Any) -> bool:
    """Whether a limit was raised or removed; None is no limit, and neither is a patience of 0."""
    if name == "early_stopping_patience":
        now, before = now or None, before or None
    numbers = isinstance(before, int | float) and (now is None or isinstance(now, int | float))
    return bool(numbers and (now is None or now > before))


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Replace a folder's content, all or nothing.

    Yields an empty folder beside `folder`. After the block its files are flushed to disk and it replaces `folder`,
    whose old content is kept as `.<name>.previous` until then. A crash at any moment leaves the old or the new content,
    which `recover` finds. The names are hidden because `last.previous` may be a copy that a user made.

    Raises:
        TrainingError: the folder cannot be written.
    """
    fresh, previous = (folder.with_name(f".{folder.name}.{kind}") for kind in ("writing", "previous"))
    try:
        recover(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        # files first, then the folder that names them; only then may the rename become visible
        for path in [*fresh.rglob("*"), fresh]:
            give_user_mode(path)
            _flush(path)
        if folder.exists():
            folder.rename(previous)
        fresh.rename(folder)
        _flush(folder.parent)  # a rename is durable once its folder is flushed
        shutil.rmtree(previous, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); its previous content is kept") from error


def exists_or_interrupted(folder: Path) -> bool:
    """Whether the folder exists, or `recover` can restore it. Changes nothing."""
    return folder.exists() or any(place.exists() for place in _previous(folder))


def recover(folder: Path) -> bool:
    """Finish a replacement that a crash interrupted. Returns whether the folder exists afterwards."""
    if folder.exists():
        shutil.rmtree(_previous(folder)[0], ignore_errors=True)
        return True
    for previous in _previous(folder):
        if previous.exists():
            previous.rename(folder)
            return True
    return False


def _previous(folder: Path) -> tuple[Path, Path]:
    """Where the old content is kept during a replacement: the name used now, and that of older versions."""
    return folder.with_name(f".{folder.name}.previous"), folder.with_name(f"{folder.name}.previous")


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
        names = _weight_files(folder)
        for name in names:
            (fresh / name).parent.mkdir(exist_ok=True)
            try:
                os.link(folder / name, fresh / name)
            except OSError:  # a file system without links
                shutil.copyfile(folder / name, fresh / name)
        write_state(fresh, progress, identity, digests={name: digests[name] for name in names})


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of weights in a checkpoint."""
    return {name: _digest_of(path) for name, path in _weight_files(folder).items()}


def _weight_files(folder: Path) -> dict[str, Path]:
    if not (folder / SHARDS).is_dir():
        return {name: folder / name for name in (MODEL, TRAINING)}
    return {f"{SHARDS}/{path.name}": path for path in sorted((folder / SHARDS).iterdir())}


def write_state(folder: Path, progress: Progress, identity: Identity, *, digests: dict[str, str]) -> None:
    """Write `state.json`; `digests` are of the files of weights."""
    state = {
        "progress": asdict(progress),
        "identity": {**identity.options, **identity.facts},
        "versions": versions(),
    }
    state = json.loads(json.dumps(state, default=str))
    state["sha256"] = {**digests, STATE: _digest_of_state(state)}
    (folder / STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")


def _save_tensors(values: dict[str, Any], path: Path) -> None:
    """`torch.save`, with an OSError for a full disk, for which torch raises a RuntimeError."""
    try:
        torch.save(values, path)
    except RuntimeError as error:
        raise OSError(f"{path.name}: {one_line(error, 120)}") from error


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_state(state: Mapping[str, Any]) -> str:
    """The digest of everything in `state.json` except the digests."""
    rest = {key: value for key, value in state.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _require_intact(folder: Path, state: Mapping[str, Any]) -> None:
    """Raises TrainingError if a file differs from what was written. Checkpoints of older versions have no digests."""
    digests = state.get("sha256")
    if digests is None:
        if unknown := state.keys() - _STATE_FIELDS:  # such as a damaged "sha256"
            raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
        return
    for name in (STATE, *_weight_files(folder)):
        found = _digest_of_state(state) if name == STATE else _digest_of(folder / name)
        if not isinstance(digests, Mapping) or digests.get(name) != found:
            raise TrainingError(
                f"{folder / name}: damaged: its content differs from what was saved (SHA-256); restore it from a "
                "copy, or start the run again with --overwrite"
            )


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


def read_progress(folder: Path, identity: Identity) -> Progress:
    """The position that a checkpoint was saved at, once its files are found to be as written.

    Raises:
        TrainingError: there is no checkpoint, it is damaged, or it belongs to another run.
    """
    if not recover(folder):
        raise TrainingError(f"{folder}: no checkpoint to resume from; start the run without --resume")
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        progress, saved = _progress_of(state["progress"]), state["identity"]
        _require_intact(folder, state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(f"{folder}: not a checkpoint of deixis ({error!r}); start with --overwrite") from error
    return identity.require_same(saved, folder, progress)


def _progress_of(values: Mapping[str, Any]) -> Progress:
    """Progress from its saved values; raises ValueError or TypeError for values that no run can have."""
    progress = Progress(**values)
    for name, default in asdict(Progress()).items():
        value = getattr(progress, name)
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
            raise ValueError(f"{name} is {value!r}, expected {type(default).__name__}")
        minimum = -1 if name in ("best_score", "best_epoch") else 0
        if isinstance(default, int) and not minimum <= value < 1 << 62:
            raise ValueError(f"{name} is {value!r}, which no run reaches")
    return progress


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a model by name, shared storage once: safetensors does not allow sharing."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel():  # empty tensors all have the address 0
            continue
        seen.add(tensor.data_ptr())
        tensors[name] = tensor.detach().contiguous()
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


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's, torch's and CUDA's generators, as tensors and plain numbers."""
    kind, internal, gauss = random.getstate()
    # Libraries draw from NumPy's legacy global generator; deixis seeds its own generators locally.
    drawn = np.random.get_state(legacy=False)  # noqa: NPY002
    assert isinstance(drawn, dict)
    return {
        "python": [kind, list(internal), gauss],
        "numpy": {
            "key": torch.from_numpy(drawn["state"]["key"].astype(np.int64)),
            "pos": int(drawn["state"]["pos"]),
            "has_gauss": int(drawn["has_gauss"]),
            "gauss": float(drawn["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Restore all generators."""
    kind, internal, gauss = states["python"]
    random.setstate((kind, tuple(internal), gauss))
    np.random.set_state(numpy_state(states["numpy"]))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    # on another number of GPUs they fit none
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
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
