"""Checkpoints that survive a crash: written to a temporary folder, flushed to disk, renamed into place.

checkpoints/last/model.safetensors   every weight of the model
checkpoints/last/training.pt         optimiser, moving average, random states (tensors and numbers only)
checkpoints/last/state.json          position in the run, best score, resolved options, versions, SHA-256 digests
"""

from deixis.training.checkpoint.files import (
    load_checkpoint,
    model_tensors,
    require_same_tensors,
    save_checkpoint,
    save_progress,
)
from deixis.training.checkpoint.progress import Identity, Progress
from deixis.training.checkpoint.replace import exists_or_interrupted, recover, replacing_folder
from deixis.training.checkpoint.state import (
    MODEL,
    SHARDS,
    STATE,
    TRAINING,
    digests_of,
    read_progress,
    versions,
    write_state,
)

__all__ = [
    "MODEL",
    "SHARDS",
    "STATE",
    "TRAINING",
    "Identity",
    "Progress",
    "digests_of",
    "exists_or_interrupted",
    "load_checkpoint",
    "model_tensors",
    "read_progress",
    "recover",
    "replacing_folder",
    "require_same_tensors",
    "save_checkpoint",
    "save_progress",
    "versions",
    "write_state",
]
