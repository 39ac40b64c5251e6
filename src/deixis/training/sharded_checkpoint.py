"""Checkpoints of a model that is divided among processes: each writes its shards, any number of processes reads them.

`checkpoints/last/shards/*.safetensors` hold the weights that train, their moving average and the optimiser's state, in
the layout of `torch.distributed.checkpoint`; `state.json` is as in `training.checkpoint`. Frozen weights are those of
the model that the run starts from, which a resumed run is compared by. Safetensors, because the other layout keeps its
table of contents in a pickle, and a pickle can execute code.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from deixis.errors import TrainingError
from deixis.training.checkpoint import (
    SHARDS,
    Identity,
    Progress,
    digests_of,
    read_progress,
    replacing_folder,
    write_state,
)
from deixis.training.ema import WeightAverage
from deixis.training.processes import is_first_process

_STEP = "step"


def save_sharded(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    average: WeightAverage | None,
    progress: Progress,
    identity: Identity,
) -> None:
    """Write a checkpoint; every process must call it.

    Raises:
        TrainingError: the folder cannot be written.
    """
    first = is_first_process()
    # One process makes the folder and renames it; the others write into it under the name that `replacing_folder` uses.
    with replacing_folder(folder) if first else nullcontext(folder.with_name(f".{folder.name}.writing")) as fresh:
        dist.barrier()  # the folder is there
        writer = HuggingFaceStorageWriter(str(fresh / SHARDS), save_distributed=True)
        state_dict_saver.save(_tensors(model, optimizer, average, progress.updates > 0), storage_writer=writer)
        if first:
            write_state(fresh, progress, identity, digests=digests_of(fresh))
    dist.barrier()  # nobody goes on before the new folder is in place


def load_sharded(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    average: WeightAverage | None,
    identity: Identity,
) -> Progress:
    """Restore a run from what `save_sharded` wrote in any number of processes; every process must call it.

    Raises:
        TrainingError: there is no checkpoint, it is damaged, or it belongs to another run.
    """
    progress = read_progress(folder, identity)
    dist.barrier()  # nobody writes there while others still look
    tensors = _tensors(model, optimizer, average, progress.updates > 0)
    try:
        reader = HuggingFaceStorageReader(str(folder / SHARDS))
        saved = {
            name: tuple(getattr(one, "size", ())) for name, one in reader.read_metadata().state_dict_metadata.items()
        }
        wanted = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        different = sorted(name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name))
        if different:
            raise TrainingError(
                f"{folder}: weights of another model: {len(different)} tensors differ, the first is {different[0]}"
            )
        state_dict_loader.load(tensors, storage_reader=reader)
    except TrainingError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise TrainingError(f"{folder}: damaged ({reason}); start with --overwrite") from error
    if average:
        averages = {name: tensors[f"average/{name}"] for name in average.state_dict()}
        average.load_state_dict(averages, math.floor(tensors["average_updates"].item()))
    return progress


def _tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None, updated: bool
) -> dict[str, Tensor]:
    """All that a checkpoint holds, by name: this process's own tensors, into which a checkpoint is read too.

    Args:
        updated: the optimiser has a state; one that has none yet gets it.
    """
    tensors: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        tensors[f"model/{name}"] = weight.detach()
        if updated:
            state = optimizer.state[weight]
            if not state:  # AdamW's, as it makes it in its first step
                state[_STEP] = torch.zeros((), device=weight.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
            tensors |= {f"optimizer/{name}/{key}": value for key, value in state.items()}
    if average:
        tensors |= {f"average/{name}": value for name, value in average.state_dict().items()}
        tensors["average_updates"] = torch.tensor(float(average.updates))  # this layout holds tensors only
    return tensors
