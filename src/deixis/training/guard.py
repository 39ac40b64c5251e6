"""The guard against NaN and inf: a non-finite step changes nothing, is counted, and its samples are reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from deixis.errors import TrainingError
from deixis.training.checkpoint import Progress
from deixis.training.processes import in_any_process, in_every_process
from deixis.training.sharding import local


def is_finite(figures: Mapping[str, float]) -> bool:
    """Whether a step may change the weights: its losses and its gradient norm are all finite.

    The figures are means over all processes. A NaN or inf in one process makes the mean non-finite, so every process
    takes the same decision.
    """
    return all(math.isfinite(value) for value in figures.values())


def raise_if_unrecoverable(
    model: nn.Module, progress: Progress, max_skipped: int, *, figures: Mapping[str, float], samples: Sequence[str]
) -> None:
    """Stop the run if skipping this step cannot help: a weight is not finite, or too many steps in a row were skipped.

    Args:
        samples: those that give a non-finite loss or gradient by themselves.

    Raises:
        TrainingError: names the non-finite figures, the step and the samples.
    """
    broken = non_finite_weights(model)
    names = ", ".join(non_finite_names(figures))
    where = f"step {progress.step}: non-finite {names} on {', '.join(samples) or 'no sample alone'}"
    if broken:
        raise TrainingError(
            f"{where}; {len(broken)} weights are NaN or inf themselves, the first is {broken[0]}: "
            "start from a checkpoint with finite weights (the last one saved is unchanged)"
        )
    if progress.skipped_in_a_row >= max_skipped:
        raise TrainingError(
            f"{where}; {progress.skipped_in_a_row} steps before it were skipped: lower --learning-rate, use "
            "--precision fp32, or check these samples (the last checkpoint is unchanged)"
        )


def bad_samples(model: nn.Module, group: Sequence[Any], loss_alone: Callable[[Any, int], Tensor]) -> list[str]:
    """The samples that give a non-finite loss or gradient when they are alone in a batch.

    Args:
        group: batches with `targets`, each of which has `source` and `image_id`.
        loss_alone: the loss of one sample, given a batch and the sample's index in it.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = []
    for batch in group:
        for index, target in enumerate(batch.targets):
            # a forward pass for each sample: rare, and the only way to tell which one it was
            loss = loss_alone(batch, index)
            # not `backward`: the step's own gradients stay as they are
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            values = [loss, *(gradient for gradient in gradients if gradient is not None)]
            if not all(bool(torch.isfinite(value).all()) for value in values):
                found.append(target.source or f"image {target.image_id}")
    return found


def non_finite_names(figures: Mapping[str, float]) -> list[str]:
    """Names of the figures that are not finite.

    >>> non_finite_names({"loss": math.nan, "grad_norm": 1.0})
    ['loss']
    """
    return [name for name, value in figures.items() if not math.isfinite(value)]


def non_finite_weights(model: nn.Module) -> list[str]:
    """Names of the parameters and buffers that hold NaN or inf."""
    return [
        name
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not bool(torch.isfinite(local(tensor)).all())
    ]


WATCHED_STEPS = 10


class GradientWatch:
    """Checks that every trainable part is trained: an error if one only gets gradients of exactly 0, or none.

    Only whole parts are checked: while an adapter's factor B is zero, as at the start, the gradient of its A is zero
    too. A part is no longer checked once it had a non-zero gradient, usually in the first step.

    Args:
        optimizer: with groups made by `optim.parameter_groups`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._weights: dict[str, list[Tensor]] = {}
        for group in optimizer.param_groups:
            # a group is named "part/decay" or "part/no_decay"
            self._weights.setdefault(group["name"].partition("/")[0], []).extend(group["params"])
        self._steps = dict.fromkeys(self._weights, 0)
        self._sharded = any(isinstance(weight, DTensor) for weights in self._weights.values() for weight in weights)

    def _has_gradient(self, part: str) -> bool:
        gradients = [local(weight.grad) for weight in self._weights[part] if weight.grad is not None]
        return bool(gradients) and bool(torch.stack([gradient.any() for gradient in gradients]).any())

    def check(self, unsupervised_parts: Collection[str]) -> None:
        """Check the gradients after a step's backward pass.

        Args:
            unsupervised_parts: parts that these batches have no targets for; the step does not count for them.

        Raises:
            TrainingError: a part had no gradient in its first `WATCHED_STEPS` steps.
        """
        if not self._steps:
            return
        # one synchronisation per part, until its first gradient that is not 0
        reached = {part for part in self._steps if self._has_gradient(part)}
        if self._sharded:  # each process sees its share of a gradient, and targets of its own
            reached, unsupervised_parts = in_any_process(reached), in_every_process(unsupervised_parts)
        for part in [part for part in self._steps if part not in unsupervised_parts]:
            if part in reached:
                del self._steps[part]
            else:
                self._steps[part] += 1
        self._raise_if(lambda steps: steps >= WATCHED_STEPS)

    def finish(self) -> None:
        """The same check at the end of a run with fewer steps; raises as `check`."""
        self._raise_if(lambda steps: steps > 0)

    def _raise_if(self, long_enough: Callable[[int], bool]) -> None:
        silent = {part: steps for part, steps in self._steps.items() if long_enough(steps)}
        if not silent:
            return
        every = len(silent) == len(self._weights)
        cause = (
            "every loss has weight 0 (the --weight-... options), or the losses do not depend on the weights"
            if every
            else "the losses that would reach it have weight 0 (the --weight-... options), or it is cut off from them"
        )
        raise TrainingError(
            f"{'no part' if every else ', '.join(silent)} received {'a' if every else 'no'} gradient in "
            f"{max(silent.values())} steps ({', '.join(silent)}: exactly 0), so it would learn nothing: {cause}; raise "
            "those weights, or freeze the part"
        )


def parameters_without_gradient(model: nn.Module) -> list[str]:
    """Names of the trainable parameters that the last backward pass did not reach."""
    return [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
