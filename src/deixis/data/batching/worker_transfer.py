"""How a batch leaves a loading worker: large tensors through shared memory, everything else by value."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor

SHARED_BYTES = 1 << 20


class InTransfer:
    """Wraps what a worker sends; it unpickles as what it wraps.

    torch moves each tensor between processes through a file descriptor of its own; with three tensors per image and
    a few workers that alone reaches the usual limit of 1024 open files. Only large tensors are worth one.
    """

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        file = io.BytesIO()
        pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
        pickler.dump(self.content)
        return _received, (file.getvalue(), pickler.shared)  # torch pickles the list itself, into shared memory


class _Pickler(pickle.Pickler):
    """Leaves out the tensors for shared memory, which torch's own pickler then passes on."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.shared: list[Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        if value.nbytes < SHARED_BYTES and not value.is_shared():  # type: ignore[no-untyped-call]
            return None
        self.shared.append(value)
        return len(self.shared) - 1

    def reducer_override(self, value: Any) -> Any:
        # by value, where torch would open a file descriptor
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, shared: list[Tensor]) -> None:
        super().__init__(io.BytesIO(content))
        self.shared = shared

    def persistent_load(self, number: int) -> Tensor:
        return self.shared[number]


def _received(content: bytes, shared: list[Tensor]) -> Any:
    return _Unpickler(content, shared).load()
