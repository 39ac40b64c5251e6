"""Names as they are typed: each a word of its own, or several in one text as prompts of other tools have them."""

from __future__ import annotations

from collections.abc import Sequence

from deixis.recipes.run.outputs import warn


def separate_names(names: Sequence[str]) -> list[str]:
    """Names, of which `"cat. dog."` and `"cat, dog"` are two; a warning says how they were understood.

    >>> separate_names(["St. Bernard", "cat"])
    ['St. Bernard', 'cat']
    """
    found: list[str] = []
    for name in names:
        parts = [part.strip() for part in name.strip().rstrip(".").split(". " if _is_prompt(name) else ",")]
        parts = [part for part in parts if part]
        if len(parts) > 1:
            warn(f"--names {name!r}: taken as {len(parts)} names: {', '.join(map(repr, parts))}")
            found += parts
        else:
            found.append(name)
    return found


def _is_prompt(name: str) -> bool:
    """Whether a text ends with a full stop and has another, as Grounding DINO's prompts do."""
    return name.rstrip().endswith(".") and ". " in name.strip()
