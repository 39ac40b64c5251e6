"""How a batch leaves a loading worker: pixels through shared memory, everything small by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deixis.records import Batch, Target


class Parcel:
    """A batch on its way out of a worker. It pickles to a `Batch`.

    torch moves each tensor between processes through a file descriptor of its own; with three tensors an image and
    a few workers that alone reaches the usual limit of 1024 open files. Only the pixels are worth one.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __reduce__(self) -> tuple[Any, ...]:
        batch = self.batch
        return _unpack, (
            batch.pixels_u8,
            batch.input_ids.numpy(),
            batch.attention_mask.numpy(),
            [_to_arrays(target) for target in batch.targets],
        )


def _to_arrays(target: Target) -> dict[str, Any]:
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in vars(target).items()}


def _to_target(fields: dict[str, Any]) -> Target:
    values: dict[str, Any] = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in fields.items()
    }
    return Target(**values)


def _unpack(
    pixels_u8: torch.Tensor, input_ids: np.ndarray, attention_mask: np.ndarray, targets: list[dict[str, Any]]
) -> Batch:
    unpacked = tuple(_to_target(fields) for fields in targets)
    pixel_mask = torch.zeros((len(pixels_u8), *pixels_u8.shape[2:]), dtype=torch.bool)
    for row, target in zip(pixel_mask, unpacked, strict=True):
        row[: target.size_hw[0], : target.size_hw[1]] = True
    return Batch(pixels_u8, pixel_mask, torch.from_numpy(input_ids), torch.from_numpy(attention_mask), unpacked)
