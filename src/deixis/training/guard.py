"""The guard against NaN and inf: a bad step changes nothing, is counted, and its samples are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deixis.errors import TrainingError
from deixis.training.checkpoint import Progress


def is_finite(figures: Mapping[str, float]) -> bool:
    """Whether a step may change the weights: its losses and the norm of its gradient are all finite.

    The figures are means over all processes, and a NaN or inf of one makes the mean so: every process decides alike.
    """
    return all(math.isfinite(value) for value in figures.values())


def require_hope(
    model: nn.Module, progress: Progress, max_skipped: int, figures: Mapping[str, float], suspects: Sequence[str]
) -> None:
    """Stop the run when skipping this step too cannot help: a weight is broken, or it is one skip too many in a row.

    Raises:
        TrainingError: says which figures were not finite, in which step, and on which samples.
    """
    broken = non_finite_weights(model)
    where = (
        f"step {progress.step}: non-finite {', '.join(culprits(figures))} on {', '.join(suspects) or 'no sample alone'}"
    )
    if broken:
        raise TrainingError(
            f"{where}; {len(broken)} weights are NaN or inf themselves, the first is {broken[0]}: "
            "start from checkpoints that are sound (the last one saved is untouched)"
        )
    if progress.skipped_in_a_row >= max_skipped:
        raise TrainingError(
            f"{where}; {progress.skipped_in_a_row} steps before it were skipped: lower --learning-rate, use "
            "--precision fp32, or check these samples (the last checkpoint is untouched)"
        )


def bad_samples(model: nn.Module, group: Sequence[Any], loss_alone: Callable[[Any, int], Tensor]) -> list[str]:
    """The samples that give a non-finite loss or gradient when they are alone in a batch.

    Args:
        group: batches with `targets`, each of which has `source` and `image_id`.
        loss_alone: a batch and the place of a sample in it to that sample's loss.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = []
    for batch in group:
        for index, target in enumerate(batch.targets):
            loss = loss_alone(batch, index)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            values = [loss, *(gradient for gradient in gradients if gradient is not None)]
            if not all(bool(torch.isfinite(value).all()) for value in values):
                found.append(target.source or f"image {target.image_id}")
    return found


def culprits(figures: Mapping[str, float]) -> list[str]:
    """Names of the figures that are not finite.

    >>> culprits({"loss": math.nan, "grad_norm": 1.0})
    ['loss']
    """
    return [name for name, value in figures.items() if not math.isfinite(value)]


def non_finite_weights(model: nn.Module) -> list[str]:
    """Names of the parameters and buffers that hold NaN or inf."""
    return [
        name
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]


WATCHED_STEPS = 10


class GradientWatch:
    """Sees that every part that should train does: an alarm where one gets a gradient of exactly 0, or none at all.

    Only whole parts are looked at: while an adapter's factor B is zero, the gradient of its A is zero by right. A part
    is done with once it has had a gradient that is not 0, usually in the first step.

    Args:
        optimizer: with groups made by `optim.parameter_groups`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._weights: dict[str, list[Tensor]] = {}
        for group in optimizer.param_groups:
            self._weights.setdefault(group["name"].partition("/")[0], []).extend(group["params"])
        self._steps = dict.fromkeys(self._weights, 0)

    def look(self, untaught: Collection[str]) -> None:
        """After a step's backward pass.

        Args:
            untaught: parts that these batches teach nothing by right; the step does not count for them.

        Raises:
            TrainingError: a part has had no gradient in the first steps that should have taught it.
        """
        for part in [part for part in self._steps if part not in untaught]:
            gradients = [weight.grad for weight in self._weights[part] if weight.grad is not None]
            if gradients and bool(torch.stack([gradient.any() for gradient in gradients]).any()):
                del self._steps[part]
            else:
                self._steps[part] += 1
        self._raise_if(lambda steps: steps >= WATCHED_STEPS)

    def finish(self) -> None:
        """At the end of a run that is shorter; raises as `look`."""
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
