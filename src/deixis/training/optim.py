"""AdamW with parameter groups: a learning rate per part of the model, with and without weight decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deixis.errors import TrainingError

# Position tables: zero has no meaning for them, so decay only makes them forget. Matched against whole parts of a
# parameter's dotted name, as in transformers; the detector's learned `query_position_embeddings` are not among them.
NO_DECAY_NAMES = {
    "position_embeddings",  # Swin, BERT, InternVL
    "position_embedding",  # SigLIP
    "pos_embed",  # Hiera, Qwen
    "pos_embed_window",  # Hiera
    "absolute_pos_embed",  # Swin's own code
    "relative_position_bias_table",  # Swin
}


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    part_of: Callable[[str], str],
    learning_rates: Mapping[str, float],
    *,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Groups for AdamW; every trainable parameter is in exactly one.

    Args:
        named_parameters: of a model; frozen ones are left out, shared ones count once.
        part_of: maps a parameter's name to its part ("backbone", "text", ...).
        learning_rates: full learning rate per part.
        weight_decay: for weights with two or more dimensions that are no position table; not for biases and norms.

    Returns:
        One dict per group with `params, lr, full_lr, weight_decay, name, parameter_names`.

    Raises:
        TrainingError: a parameter's part has no learning rate, or no parameter is trainable.
    """
    groups: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    for name, parameter in named_parameters:
        if not parameter.requires_grad or id(parameter) in seen:
            continue
        seen.add(id(parameter))
        part = part_of(name)
        if part not in learning_rates:
            raise TrainingError(f"parameter {name} is of part {part!r}, which has no learning rate")
        decays = is_decayed(name, parameter)
        # a group per part and decay: AdamW has one rate and one decay for a group
        key = f"{part}/{'decay' if decays else 'no_decay'}"
        rate = learning_rates[part]
        empty: dict[str, Any] = {"params": [], "parameter_names": [], "name": key, "lr": rate, "full_lr": rate}
        group = groups.setdefault(key, empty | {"weight_decay": weight_decay if decays else 0.0})
        group["params"].append(parameter)
        group["parameter_names"].append(name)
    if not groups:
        raise TrainingError("nothing is trainable: every part is frozen; give one of them a learning rate above 0")
    return [groups[key] for key in sorted(groups)]


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether a parameter gets weight decay: not norms and biases (one dimension), nor position tables."""
    return parameter.ndim > 1 and NO_DECAY_NAMES.isdisjoint(name.split("."))


def build_adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """AdamW with PyTorch's defaults, in its fused form; learning rate and decay come from the groups."""
    # names would be saved with the optimiser's state in every checkpoint
    plain = [{key: value for key, value in group.items() if key != "parameter_names"} for group in groups]
    return torch.optim.AdamW(plain, fused=True)


def start_late_groups(optimizer: torch.optim.Optimizer, updates: int) -> bool:
    """Let groups that wait for their `first_update` train from now on; whether there was one."""
    late = [group for group in optimizer.param_groups if group.get("first_update", 0) > updates]
    for group in late:
        group["first_update"] = updates  # saved with the optimiser's state
    return bool(late)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float, updates: int = 0) -> dict[str, float]:
    """Set every group's learning rate to `factor` times its full rate; to 0 before the group's `first_update`.

    Args:
        updates: made so far.

    Returns:
        The rate per part, for the log.
    """
    for group in optimizer.param_groups:
        starts = updates >= group.get("first_update", 0)
        group["lr"] = group["full_lr"] * factor if starts else 0.0  # AdamW at rate 0 changes no weight, nor decays any
    return {group["name"].split("/")[0]: float(group["lr"]) for group in optimizer.param_groups}


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then one step down or a cosine to zero.

    Attributes:
        total_updates: updates in the whole run.
        warmup_updates: updates until the full learning rate is reached.
        drop_at: fraction of the run after which "step" divides the rate by ten.
    """

    kind: Literal["step", "cosine"]
    total_updates: int
    warmup_updates: int = 0
    drop_at: float = 0.85

    def factor(self, updates: int) -> float:
        """The factor on the full learning rate for the update after `updates` others.

        >>> Schedule("step", total_updates=100, warmup_updates=4).factor(0)
        0.25
        """
        if updates < self.warmup_updates:
            return (updates + 1) / self.warmup_updates  # never 0: the first update changes the weights
        if self.kind == "step":
            return 1.0 if updates < self.drop_at * self.total_updates else 0.1
        span = max(1, self.total_updates - self.warmup_updates)
        # SGDR, arXiv 1608.03983, eq. 5, to 0
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (updates - self.warmup_updates) / span)))
