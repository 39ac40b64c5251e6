"""The options of `deixis model merge` and of `deixis model edit add | remove | list`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.marks import Required, Share
from deixis.options.types import Options

EXAMPLE = "runs/mine/teachers/grounding_dino"


@dataclass(frozen=True)
class ModelMergeOptions(Options):
    """Merge an adapter into its base model, or average a fine-tuned model with its base."""

    model: Annotated[str, Required("runs/mine/teachers/grounding_dino")] = ""
    """The fine-tuned model: an adapter, which is merged into its base, or a whole model; a folder, a run's folder or a
    hub id."""
    base: str = ""
    """What fine-tuning started from: "builtin", a folder, a run's folder or a hub id; required with --weight for a
    whole model, an adapter names its own."""
    weight: Share = 1.0
    """Weight of the fine-tuned model, from 0 (the base) to 1; below 1, some of what was forgotten comes back."""
    output: Path = Path("merged")
    """Folder to write, in transformers' layout; it must not exist."""
    dry_run: bool = False
    """Read and check everything, write nothing."""


@dataclass(frozen=True)
class ModelEditListOptions(Options):
    """List the tasks of an edited detector."""

    model: Annotated[str, Required(EXAMPLE)] = ""
    """The edited model: a folder with edits/, the run that wrote it, or a hub id."""


@dataclass(frozen=True)
class ModelEditAddOptions(Options):
    """Add tasks to a detector, learnt with `detect train --keep edit`; nothing is trained."""

    model: Annotated[str, Required("IDEA-Research/grounding-dino-tiny")] = ""
    """What the tasks' training started from, or a model that has other tasks of it already."""
    tasks: Annotated[tuple[Path, ...], Required(f"{EXAMPLE}/edits/mine.safetensors")] = ()
    """Files of tasks, or edited models, all of whose tasks are added."""
    output: Path = Path("edited")
    """Folder to write, in transformers' layout; it must not exist."""


@dataclass(frozen=True)
class ModelEditRemoveOptions(Options):
    """Remove tasks from an edited detector; without a task its weights are the first ones again."""

    model: Annotated[str, Required(EXAMPLE)] = ""
    """The edited model: a folder with edits/, the run that wrote it, or a hub id."""
    tasks: Annotated[tuple[str, ...], Required("mine")] = ()
    """Names of tasks, as `deixis model edit list` prints them."""
    output: Path = Path("edited")
    """Folder to write, in transformers' layout; it must not exist."""
