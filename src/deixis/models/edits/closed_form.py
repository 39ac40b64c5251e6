"""Model editing in closed form: several tasks in the same weights, with as little change elsewhere as can be.

After auto-balanced model editing (ABME, ICLR 2026, openreview 4fOGZWupMM). Only the output projections W of feed-
forward layers are tuned. The tuned model sees its training pictures once; of each layer's inputs K the Gram matrix A =
K^T K is kept, and from the tuned weights W_t the change they make to the outputs, C = A (W_t - W_0)^T. With the energy
s of each input, the diagonal of A, and Gamma^2 = diag(s^(1/2)), the edited weights solve

    (A + Gamma^2) (W - W_0)^T = C.

Inputs that the task hardly uses keep their old weights; no factor has to be chosen. A and C of several tasks add up, so
tasks can be added and removed in any order, and a task's size does not depend on its number of pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

LAYERS = re.compile(r"model\.(encoder|decoder)\..*\.fc2")
"""Names of the modules that are edited: the second layer of every feed-forward block of encoder and decoder."""


@dataclass(frozen=True)
class LayerTask:
    """What a task keeps of a layer.

    Attributes:
        gram: A, of the layer's inputs.
        change: C.
    """

    gram: Float[Tensor, "d_in d_in"]
    change: Float[Tensor, "d_in d_out"]


def edited_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers that are edited, by name."""
    return {
        name: module for name, module in model.named_modules() if LAYERS.fullmatch(name) and type(module) is nn.Linear
    }


def train_edited_layers(model: nn.Module) -> None:
    """Freeze everything but the weights of the layers that are edited; their biases stay."""
    model.requires_grad_(False)
    for layer in edited_layers(model).values():
        layer.weight.requires_grad_(True)


@contextmanager
def gathering(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A block in which every forward pass adds to the Gram matrices of the edited layers' inputs, in float64.

    Only passes without gradients count: with them, a feed-forward block is computed without calling its layers.
    """
    grams: dict[str, Tensor] = {}

    def add(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        del layer
        flat = inputs[0].detach().flatten(0, -2).float()  # [..., d_in] -> [tokens, d_in]
        gram = (flat.T @ flat).double()
        grams[name] = grams[name] + gram if name in grams else gram

    hooks = [layer.register_forward_pre_hook(partial(add, name)) for name, layer in edited_layers(model).items()]
    try:
        yield grams
    finally:
        for hook in hooks:
            hook.remove()


def layer_task(
    gram: Float[Tensor, "d_in d_in"], first: Float[Tensor, "d_out d_in"], tuned: Float[Tensor, "d_out d_in"]
) -> LayerTask:
    """A layer's task, from the Gram matrix of its inputs and its weights before and after tuning."""
    gram = gram.double()
    return LayerTask(gram, gram @ (tuned.double() - first.double()).T)


def edited_weight(first: Float[Tensor, "d_out d_in"], tasks: Iterable[LayerTask]) -> Float[Tensor, "d_out d_in"]:
    """A layer's weights with tasks added, solved in float64; the first weights themselves without a task."""
    chosen = list(tasks)
    if not chosen:
        return first.clone()
    gram = torch.stack([task.gram.double() for task in chosen]).sum(0)
    change = torch.stack([task.change.double() for task in chosen]).sum(0)
    balance = gram.diagonal().clamp(min=0).sqrt()
    # an input that is always zero has no energy and changes nothing: 1 keeps the system solvable
    system = gram + torch.diag(balance.where(balance > 0, 1.0))
    moved: Tensor = torch.linalg.solve(system, change).T
    return (first.double() + moved).to(first.dtype)


def edit(first: Mapping[str, Tensor], tasks: Iterable[Mapping[str, LayerTask]]) -> dict[str, Tensor]:
    """`edited_weight` for every layer."""
    chosen = list(tasks)
    return {name: edited_weight(weight, [task[name] for task in chosen]) for name, weight in first.items()}
