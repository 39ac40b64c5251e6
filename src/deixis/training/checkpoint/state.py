"""`state.json` of a checkpoint: position, identity, versions, and digests of all its files."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deixis.errors import TrainingError
from deixis.training.checkpoint.progress import Identity, Progress, progress_of
from deixis.training.checkpoint.replace import recover

MODEL, TRAINING, STATE = "model.safetensors", "training.pt", "state.json"
SHARDS = "shards"  # in place of the first two where the model is divided among processes
_STATE_FIELDS = {"progress", "identity", "versions"}


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of weights in a checkpoint."""
    return {name: _digest_of(path) for name, path in weight_files(folder).items()}


def weight_files(folder: Path) -> dict[str, Path]:
    if not (folder / SHARDS).is_dir():
        return {name: folder / name for name in (MODEL, TRAINING)}
    return {f"{SHARDS}/{path.name}": path for path in sorted((folder / SHARDS).iterdir())}


def write_state(folder: Path, progress: Progress, identity: Identity, *, digests: dict[str, str]) -> None:
    """Write `state.json`; `digests` are of the files of weights."""
    state = {"progress": asdict(progress), "identity": {**identity.options, **identity.facts}, "versions": versions()}
    # as it will be read back, so that the digest is of the same values
    state = json.loads(json.dumps(state, default=str))
    state["sha256"] = {**digests, STATE: _digest_of_state(state)}
    (folder / STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")


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
    for name in (STATE, *weight_files(folder)):
        found = _digest_of_state(state) if name == STATE else _digest_of(folder / name)
        if not isinstance(digests, Mapping) or digests.get(name) != found:
            raise TrainingError(
                f"{folder / name}: damaged: its content differs from what was saved (SHA-256); restore it from a "
                "copy, or start the run again with --overwrite"
            )


def read_progress(folder: Path, identity: Identity) -> Progress:
    """The position that a checkpoint was saved at, once its files are found to be as written.

    Raises:
        TrainingError: there is no checkpoint, it is damaged, or it belongs to another run.
    """
    if not recover(folder):
        raise TrainingError(f"{folder}: no checkpoint to resume from; start the run without --resume")
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        progress, saved = progress_of(dict(state["progress"])), dict(state["identity"])
        _require_intact(folder, state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(f"{folder}: not a checkpoint of deixis ({error!r}); start with --overwrite") from error
    return identity.require_same(saved, folder, progress)


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in ("deixis", "torch", "transformers", "accelerate", "peft", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
