"""Interpolating between a model and its fine-tuned version (WiSE-FT, arXiv 2109.01903)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from deixis.errors import ModelError, OptionError
from deixis.models.checkpoints import DetectorBundle, with_learned_names
from deixis.models.text import learned_names


def interpolate(base: DetectorBundle, tuned: DetectorBundle, share: float) -> DetectorBundle:
    """A new model with the weights `(1 - share) * base + share * tuned`.

    This trades a little accuracy on the new data for much on the old; both ends are exact. Everything except the
    weights is taken from the tuned model.

    Args:
        share: 0 gives the base, 1 the tuned model.

    Raises:
        OptionError: `share` is outside [0, 1].
        ModelError: the two have different shapes, or adapters that are not merged.
    """
    if own := tuple(learned_names(tuned.tokenizer)):
        # tokens that the tuning added: a copy of the base gets their rows too, as they were at its start
        base = with_learned_names(replace(base, model=copy.deepcopy(base.model)), own)
    state = interpolated_state(base.model.state_dict(), tuned.model.state_dict(), share)
    model = copy.deepcopy(tuned.model)
    model.load_state_dict(state)
    name = f"{base.source} to {tuned.source} at {share:g}"
    return replace(tuned, model=model, source=name)


def interpolated_state(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """`interpolate` for tensors by name."""
    if not 0 <= share <= 1:
        raise OptionError(f"the share must be between 0 (the base) and 1 (the tuned model), got {share}")
    faults = [f"{name} is only in one" for name in sorted(base.keys() ^ tuned.keys())]
    faults += [
        f"{name} is {tuple(base[name].shape)} and {tuple(tuned[name].shape)}"
        for name in sorted(base.keys() & tuned.keys())
        if base[name].shape != tuned[name].shape
    ]
    if faults:
        raise ModelError(
            f"the base and the tuned model differ in more than weights ({len(faults)}): {'; '.join(faults)}"
        )
    return {
        # exact at both ends; integers are not interpolated
        name: torch.lerp(start, tuned[name].to(start), share) if start.is_floating_point() else tuned[name].clone()
        for name, start in base.items()
    }
