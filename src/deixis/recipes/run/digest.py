"""Weights in a few characters, to tell runs apart."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor, nn


def weights_digest(model: nn.Module) -> str:
    """Twelve characters that tell two sets of weights apart."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return digest.hexdigest()[:12]


def tensor_digest(tensor: Tensor) -> str:
    """The same of one tensor."""
    return hashlib.sha256(np.ascontiguousarray(tensor.detach().cpu().numpy()).data).hexdigest()[:12]
