"""Operations of a step, beside the arithmetic."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from deixis.recipes.run import devices
from deixis.training.operations import counted


def test_a_linear_layer_takes_three_products() -> None:
    layer = nn.Linear(5, 7)
    inputs = torch.randn(3, 5, requires_grad=True)
    with counted(layer, wanted=True) as operations:
        layer(inputs).sum().backward()
    assert operations is not None
    # forward, the gradient of the weight, and that of the input
    assert operations.total == 3 * 2 * 3 * 5 * 7


def test_it_counts_what_pytorch_counts_and_checkpointed_layers_twice() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    inputs = torch.randn(2, 6, 16, requires_grad=True)
    totals = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        with counted(layer, wanted=True) as operations:
            run(inputs).sum().backward()
        assert operations is not None
        totals.append(operations.total)
    with FlopCounterMode(display=False) as theirs:
        layer(inputs).sum().backward()
    assert totals[0] == theirs.get_total_flops()
    assert totals[1] > 1.3 * totals[0]


def test_it_counts_only_where_it_can(monkeypatch) -> None:
    layer = nn.Linear(2, 2)
    with counted(layer, wanted=False) as operations:
        assert operations is None
    layer.compile()
    with counted(nn.Sequential(layer), wanted=True) as operations:
        assert operations is None


def test_the_peak_of_a_device_is_that_of_its_whole_name(monkeypatch) -> None:
    gpu = torch.device("cuda")
    for name, peak in {
        "NVIDIA H100 80GB HBM3": 989,
        "NVIDIA H100 PCIe": 756,
        "NVIDIA A100-SXM4-80GB": 312,
        "NVIDIA L4": 121,
        "NVIDIA L40S": 362,
        "NVIDIA GeForce RTX 4090": 165,
        "Another": None,
    }.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert devices.known_peak(gpu, "bf16") == peak, name
    assert devices.known_peak(gpu, "fp32") is None
    assert devices.known_peak(torch.device("cpu"), "bf16") is None
