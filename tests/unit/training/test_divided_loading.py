"""A segmenter read to be divided: each process holds its rows of the file's weights, bit for bit, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from small_segmenters import tiny_segmenter
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from deixis.models.sa2va import load_sa2va, save_sa2va
from deixis.models.sa2va.parts import layers_of
from deixis.training.sharding import ShardedModel, local


@contextmanager
def one_of_two(rank: int) -> Iterator[None]:
    """As if this were one of two processes; nothing is exchanged."""
    dist.init_process_group("fake", rank=rank, world_size=2, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def shards_of(folder: Path, rank: int) -> dict[str, Tensor]:
    with one_of_two(rank):
        model = load_sa2va(folder).model
        ShardedModel(model, layers_of(model), torch.device("cpu"))
        return {name: local(weight).detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_the_shards_of_two_processes_are_the_rows_of_the_file(tmp_path: Path, tied: bool) -> None:
    save_sa2va(tiny_segmenter(tied=tied), tmp_path)
    first, second = shards_of(tmp_path, 0), shards_of(tmp_path, 1)
    weights = dict(load_sa2va(tmp_path).model.named_parameters())
    assert weights.keys() == first.keys() == second.keys()
    for name, weight in weights.items():
        assert torch.equal(torch.cat([first[name], second[name]]), weight), name
    assert sum(map(torch.numel, first.values())) < 0.6 * sum(map(torch.numel, weights.values()))
