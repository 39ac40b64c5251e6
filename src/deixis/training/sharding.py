"""A model divided among processes: each holds its share of every weight, gradient and optimiser state (FSDP2).

`torch.distributed.fsdp.fully_shard` gathers the weights of one layer at a time for its forward and backward pass. To
evaluate and to save a model's folder all of them are gathered (`whole`), since processes then differ in what they run.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

Model = TypeVar("Model", bound=nn.Module)


class ShardedModel(Generic[Model]):
    """A model whose parameters become shards, in place.

    Args:
        model: with all its weights, on any device; the same in every process.
        layers: modules that every process calls once per forward pass, in the same order; each is gathered by itself.
            What is in none of them is gathered for the whole forward and backward pass.
        device: where the shards are kept.
    """

    def __init__(self, model: Model, layers: Sequence[nn.Module], device: torch.device) -> None:
        self.model = model
        self._empty = _without_weights(model)
        self._is_whole = False
        # Losses change no output in place, which is what it warns of.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for module in layers:
            fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        self._groups = [module for module in model.modules() if isinstance(module, FSDPModule)]
        # A layer that is called by itself, as evaluation does, would otherwise take itself for the outermost.
        fully_shard.state(model)._lazy_init()  # type: ignore[attr-defined]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Inside the block every process has all weights and may use the model as it likes, without a gradient.

        Every process must enter and leave it.
        """
        if self._is_whole:
            yield
            return
        for group in self._groups:
            # else each forward pass in the block would divide its layers again
            group.set_reshard_after_forward(False, recurse=False)
            group.unshard()
        self._is_whole = True
        try:
            yield
        finally:
            self._is_whole = False
            for group in self._groups:
                # `fully_shard`'s own setting: the outermost keeps its weights, which the backward pass needs first
                group.set_reshard_after_forward(group is not self.model, recurse=False)
                group.reshard()

    def plain(self) -> Model:
        """The model as it was before, with the weights of now, which it shares; call it inside `whole`."""
        assert self._is_whole
        model = copy.deepcopy(self._empty)
        # the same object for each name of a tied weight
        own = {id(weight): nn.Parameter(weight.detach(), weight.requires_grad) for weight in self.model.parameters()}
        weights: dict[str, Tensor] = {
            **{name: own[id(weight)] for name, weight in self.model.named_parameters(remove_duplicate=False)},
            **dict(self.model.named_buffers(remove_duplicate=False)),
        }
        model.load_state_dict({name: weights[name] for name in model.state_dict()}, assign=True)
        for name, buffer in self.model.named_buffers():  # those that state_dict leaves out
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, buffer)
        return model


def whole(sharding: ShardedModel[Any] | None) -> AbstractContextManager[None]:
    """See `ShardedModel.whole`; nothing for a model that every process has whole."""
    return nullcontext() if sharding is None else sharding.whole()


def is_sharded(model: nn.Module) -> bool:
    """Whether the model's parameters are shards."""
    return isinstance(model, FSDPModule)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor; every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _without_weights(model: Model) -> Model:
    """A copy with parameters and buffers that take no memory."""
    kept: dict[int, Any] = {}
    for parameter in model.parameters():
        kept[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in model.buffers():
        kept[id(buffer)] = torch.empty_like(buffer, device="meta")
    # `deepcopy` takes from its memo what it would otherwise copy: the weights
    return copy.deepcopy(model, kept)
