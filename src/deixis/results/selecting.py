"""Positions and names as callers of results give them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from jaxtyping import Bool

from deixis.data.sets.subset import positions
from deixis.errors import OptionError

__all__ = ["chosen_names", "positions", "require_share", "selected"]


def chosen_names(names: str | Sequence[str], known: Sequence[str]) -> list[int]:
    """The class ids of some names.

    Raises:
        OptionError: one of them is not known.
    """
    asked = [names] if isinstance(names, str) else list(names)
    for name in asked:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(map(repr, known[:20]))}"
            raise OptionError(f"names: {name!r} is not among the names that were looked for{hint}")
    return [class_id for class_id, name in enumerate(known) if name in asked]


def selected(
    found: Any, names: str | Sequence[str] | None, min_score: float | None, *, min_area: float | None
) -> Bool[np.ndarray, " n"]:
    """Which objects are of some names, from a score and from an area on; None asks for nothing.

    Args:
        found: `Detections` or `Segmentations`.

    Raises:
        OptionError: a name that was not looked for.
    """
    keep = np.ones(len(found), bool)
    if names is not None:
        keep &= np.isin(found.class_ids, chosen_names(names, found.names))
    if min_score is not None:
        keep &= found.scores >= min_score
    if min_area is not None:
        keep &= found.areas_px >= min_area
    return keep


def require_share(name: str, value: float) -> None:
    """Raises OptionError unless a number is between 0 and 1."""
    if not 0 <= value <= 1:
        raise OptionError(f"{name} must be between 0 and 1, got {value}")
