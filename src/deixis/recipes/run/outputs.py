"""What commands that write results have in common."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from deixis.console import print_text
from deixis.errors import DataError


def warn(message: str) -> None:
    """One line on stderr."""
    print_text(f"deixis: warning: {message}", to_stderr=True)


@cache
def warn_once(message: str) -> None:
    """The same, for what every evaluation of a run would repeat."""
    warn(message)


def make_output(folder: Path) -> None:
    """Make the folder for results before any work is done for them.

    Raises:
        DataError: it cannot be made or written.
    """
    probe = folder / ".deixis-writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); choose another --output") from error


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
