"""The states of all random number generators, as tensors and plain numbers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMPY_KEYS = 624  # words in the state of a Mersenne twister


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
    np.random.set_state(_numpy_state(states["numpy"]))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    # on another number of GPUs they fit none
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def require_random_states(states: Mapping[str, Any]) -> None:
    """Raises an error of any kind if a saved state does not fit a generator; tried on new generators."""
    kind, internal, gauss = states["python"]
    random.Random().setstate((kind, tuple(internal), gauss))
    saved = states["numpy"]
    if saved["key"].shape != (_NUMPY_KEYS,) or not 0 <= saved["pos"] <= _NUMPY_KEYS:
        raise ValueError("NumPy's random state has another length or a position out of range")
    np.random.RandomState().set_state(_numpy_state(saved))
    torch.Generator().set_state(states["torch"])
    if not all(isinstance(state, Tensor) and state.dtype == torch.uint8 for state in states["cuda"]):
        raise ValueError("CUDA's random states are no bytes")


def _numpy_state(saved: Mapping[str, Any]) -> tuple[str, Any, int, int, float]:
    """The state as NumPy's `set_state` expects it."""
    return "MT19937", saved["key"].numpy().astype(np.uint32), saved["pos"], saved["has_gauss"], saved["gauss"]
