"""How many operations a step takes, counted while it runs: matrix products, convolutions and attention, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts inside its block by PyTorch's own formulas; a multiply-add is two.

    `FlopCounterMode` has the same formulas, and hooks on every module that checkpointed layers confuse. Kernels of
    deixis (deformable attention) are not counted, nor what torch.compile has compiled.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


@contextmanager
def counted(model: nn.Module, wanted: bool) -> Iterator[Operations | None]:
    """Counts the block's operations if they are wanted; None otherwise, and of a compiled model."""
    if not wanted or any(module._compiled_call_impl is not None for module in model.modules()):
        yield None
        return
    with Operations() as operations:
        yield operations
