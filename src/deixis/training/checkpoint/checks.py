"""Checks of a checkpoint's content by type, shape and range, before any of it is loaded.

torch checks little: a moment with the wrong shape crashes the interpreter in a fused kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def require_optimizer_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Raises ValueError, TypeError or KeyError if a saved state does not fit this optimiser."""
    own, groups = optimizer.param_groups, saved["param_groups"]
    found = [len(group["params"]) for group in groups]
    if found != [len(group["params"]) for group in own]:
        raise ValueError(f"the optimiser has groups of {found} parameters, which are not this model's")
    for mine, theirs in zip(own, groups, strict=True):
        for name in mine.keys() - {"params"}:
            if name in theirs and not _is_like(theirs[name], mine[name]):
                raise ValueError(f"the optimiser's {name} is {theirs[name]!r}, expected one like {mine[name]!r}")
    # torch saves numbers in place of parameters; they stand in the same order as this optimiser's own.
    keys = [key for group in groups for key in group["params"]]
    parameters = dict(zip(keys, (p for group in own for p in group["params"]), strict=True))
    if len(parameters) != len(keys):
        raise ValueError("the optimiser lists a parameter twice")
    for key, values in saved["state"].items():
        _require_moments(values, parameters[key])


def _is_like(value: Any, own: Any) -> bool:
    if own is None or isinstance(own, bool):  # switches such as `foreach`, which torch leaves None where it may choose
        return value is None or isinstance(value, bool)
    if isinstance(own, int | float):
        return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)  # bool is an int
    if isinstance(own, tuple):
        fits = isinstance(value, tuple | list) and len(value) == len(own)
        return fits and all(_is_like(a, b) for a, b in zip(value, own, strict=True))
    return isinstance(value, type(own))


def _require_moments(values: Mapping[str, Any], parameter: Tensor) -> None:
    """Check AdamW's state for one parameter: two moments with its shape, and the number of its steps."""
    for name in ("step", "exp_avg", "exp_avg_sq"):
        value, expected = values[name], torch.Size() if name == "step" else parameter.shape
        if not isinstance(value, Tensor) or value.shape != expected or not value.dtype.is_floating_point:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the optimiser's {name} is {found}, expected floats of shape {tuple(expected)}")
    if not float(values["step"]) >= 0:  # this way round NaN fails too
        raise ValueError(f"the optimiser's step is {float(values['step'])}, expected a number from 0")


def require_average(own: Mapping[str, Tensor], saved: Mapping[str, Any], updates: Any) -> None:
    """Raises ValueError if a saved moving average does not fit this model."""
    wrong = sorted(own.keys() ^ saved.keys())
    wrong += [name for name in own.keys() & saved.keys() if not _same_tensor(saved[name], own[name])]
    if wrong:
        raise ValueError(f"the average has {len(wrong)} tensors that are not this model's, first {wrong[0]}")
    if isinstance(updates, bool) or not isinstance(updates, int) or updates < 0:
        raise ValueError(f"the average's number of updates is {updates!r}")


def _same_tensor(value: Any, own: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == own.shape and value.dtype == own.dtype
