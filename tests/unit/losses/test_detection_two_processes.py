"""Two processes (gloo) under DDP against one on the joined batch: the same losses, the same gradients."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detection_batches import random_targets
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deixis.batch_records import Target
from deixis.losses import detection
from deixis.losses.boxes import boxes_per_process
from deixis.losses.detection import build_criterion

pytestmark = pytest.mark.slow

QUERIES, TEXT_LEN, FEATURES, LAYERS = 5, 30, 6, 3
COUNTS = {"even": (2, 3, 3, 2), "uneven": (7, 1, 0, 1), "one process without boxes": (0, 0, 4, 2), "none": (0, 0, 0, 0)}


def half_as_many(count: int, device: torch.device) -> Tensor:
    """transformers: the all-reduce takes the mean, which is then divided by the number of processes once more."""
    return (boxes_per_process(count, device) / dist.get_world_size()).clamp(min=1)


def of_this_process(count: int, device: torch.device) -> Tensor:
    """Open-GroundingDino's class loss: no all-reduce."""
    return torch.tensor(max(float(count), 1.0))


def of_all_processes(count: int, device: torch.device) -> Tensor:
    """The sum without the division, while DDP averages."""
    return boxes_per_process(count, device) * dist.get_world_size()


NORMALISERS = {
    "ours": boxes_per_process,
    "half": half_as_many,
    "local": of_this_process,
    "sum": of_all_processes,
}


class TinyDetector(nn.Module):
    """Heads on given features, one a layer; -inf on padded tokens, as the detector gives them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.heads = nn.ModuleList(nn.Linear(FEATURES, TEXT_LEN + 4) for _ in range(LAYERS + 1))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5

    def forward(self, features: Tensor, mask: Tensor) -> dict[str, object]:
        layers = []
        for head in self.heads:
            logits, boxes = head(features).split([TEXT_LEN, 4], dim=-1)
            logits = logits.masked_fill(~mask[:, None], -torch.inf)
            layers.append({"pred_logits": logits, "pred_boxes": boxes.sigmoid()})
        return {**layers[0], "text_token_mask": mask, "aux_outputs": layers[1:-1], "enc_outputs": layers[-1]}


def joined_batch(name: str) -> tuple[Tensor, Tensor, list[Target]]:
    rng = np.random.default_rng(7)
    targets = random_targets(rng, COUNTS[name])
    mask = torch.stack([torch.arange(TEXT_LEN) < one.positive_map.shape[1] for one in targets])
    return torch.tensor(rng.normal(size=(4, QUERIES, FEATURES)), dtype=torch.float32), mask, targets


def step(model: nn.Module, features: Tensor, mask: Tensor, targets: list[Target]) -> dict[str, Tensor]:
    """Losses by name and the gradient of every parameter after one backward pass."""
    model.zero_grad()
    criterion = build_criterion(decoder_layers=LAYERS)
    losses = criterion(model(features, mask), targets)
    criterion.total(losses).backward()
    found = {name: loss.detach() for name, loss in losses.items() if name != "class_error"}
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    return found | {f"grad {name}": parameter.grad.clone() for name, parameter in inner.named_parameters()}


def work(rank: int, port: int, folder: Path) -> None:
    """One of two processes: its half of every batch, with every normaliser."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = DistributedDataParallel(TinyDetector())  # no find_unused_parameters: every head needs its gradient
    results = {}
    for normaliser, function in NORMALISERS.items():
        detection.boxes_per_process = function
        for name in COUNTS:
            features, mask, targets = joined_batch(name)
            mine = slice(2 * rank, 2 * rank + 2)
            found = step(model, features[mine], mask[mine], targets[mine])
            for key in found:
                if not key.startswith("grad"):
                    dist.all_reduce(found[key])
                    found[key] /= 2  # what DDP does to gradients
            results |= {f"{normaliser}/{name}/{key}": value for key, value in found.items()}
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("two_processes")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(work, (port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def check_equal(together: dict[str, Tensor], rank: dict[str, Tensor], prefix: str) -> None:
    for key, value in together.items():
        assert torch.allclose(rank[prefix + key], value, rtol=1e-4, atol=1e-5), key


@pytest.mark.parametrize("name", COUNTS)
def test_losses_and_gradients_equal_one_process(two_processes, name):
    together = step(TinyDetector(), *joined_batch(name))
    # Without a box each process divides by 1, as one process does, so the mean of the two is half of the joint sum.
    together = {key: value / 2 if name == "none" else value for key, value in together.items()}
    for rank in two_processes:
        check_equal(together, rank, f"ours/{name}/")


@pytest.mark.parametrize("faulty", ["half", "local", "sum"])
def test_b_faulty_normalisers_are_rejected(two_processes, faulty):
    together = step(TinyDetector(), *joined_batch("uneven"))
    check_equal(together, two_processes[0], "ours/uneven/")
    with pytest.raises(AssertionError):
        check_equal(together, two_processes[0], f"{faulty}/uneven/")


def test_one_process_is_the_plain_count():
    assert boxes_per_process(0, torch.device("cpu")).item() == 1
    assert boxes_per_process(7, torch.device("cpu")).item() == 7
