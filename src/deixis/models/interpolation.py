"""Between a model and what fine-tuning made of it (WiSE-FT, arXiv 2109.01903)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from deixis.errors import ModelError, OptionError
from deixis.models.grounding_dino import GroundingDinoBundle


def interpolate(base: GroundingDinoBundle, tuned: GroundingDinoBundle, share: float) -> GroundingDinoBundle:
    """A new model with every weight at `share` of the way from the base's to the tuned one's.

    A little of the new data's accuracy is given for much of the old data's; both ends are exact. Everything but the
    weights is the tuned model's.

    Args:
        share: 0 is the base, 1 the tuned model.

    Raises:
        OptionError: a share outside [0, 1].
        ModelError: the two are not of one shape, or carry adapters that are not merged.
    """
    state = interpolated_state(base.model.state_dict(), tuned.model.state_dict(), share)
    model = copy.deepcopy(tuned.model)
    model.load_state_dict(state)
    name = f"{base.source} to {tuned.source} at {share:g}"
    return replace(tuned, model=model, source=name)


def interpolated_state(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """`interpolate` for tensors by name."""
    if not 0 <= share <= 1:
        raise OptionError(f"the share must be from 0 (the base) to 1 (the tuned model), got {share}")
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
        name: torch.lerp(start, tuned[name].to(start), share) if start.is_floating_point() else tuned[name].clone()
        for name, start in base.items()
    }
