"""Positions and names as callers of results give them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from deixis.errors import OptionError


def positions(index: Any, count: int) -> int | Int[np.ndarray, " m"]:
    """What an index selects: one position, or those of a slice, a boolean mask or a list of positions.

    Raises:
        IndexError: outside the sequence, or a mask of another length.
        TypeError: not an index.

    >>> positions(-1, 3), positions(np.array([True, False, True]), 3).tolist()
    (2, [0, 2])
    """
    if isinstance(index, int | np.integer) and not isinstance(index, bool):
        return range(count)[int(index)]
    if isinstance(index, slice):
        return np.arange(count)[index]
    asked = np.asarray(index.cpu() if hasattr(index, "cpu") else index)
    if asked.size == 0 and asked.dtype != bool:
        return np.zeros(0, np.int64)
    if asked.ndim != 1 or asked.dtype.kind not in "biu":
        raise TypeError(f"an index must be an integer, a slice, a mask or a list of integers, got {index!r}")
    chosen: np.ndarray = np.arange(count)[asked]
    return chosen


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
