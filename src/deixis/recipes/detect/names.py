"""The class names that a detector was fine-tuned on: asked for where none are given, and compared with those given."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from deixis.errors import OptionError
from deixis.models.builtin import resolve_model
from deixis.models.model_record import read_record
from deixis.recipes.run.outputs import warn
from deixis.text import listed

SIMILARITY = 0.75  # of 1; "racoon" and "raccoon" have 0.92, "dog" and "frog" 0.57
MAX_SHOWN = 5


def stored_names(model: str) -> tuple[str, ...]:
    """The names in the record of a model's folder; none for a model of the hub, or a folder without a record.

    Raises:
        ModelError: the record cannot be read, or there is no one model.
    """
    folder = Path(resolve_model(model))
    return read_record(folder).names if folder.is_dir() else ()


def names_or_stored(names: Sequence[str], model: str) -> list[str]:
    """What to look for, each name once: the names given, or those that the model was fine-tuned on.

    A name that the model does not know, but nearly, is questioned on stderr.

    Raises:
        OptionError: none are given, and the model stores none.
    """
    known = stored_names(model)
    if not names and not known:
        raise OptionError(f"--names is required: {model} stores no names; as in --names raccoon 'traffic light'")
    for question in questions(names, known):
        warn(question)
    return list(dict.fromkeys(names or known))


def questions(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """A line for each name that is likely misspelt, or one for all where the model has learned none of them.

    >>> questions(["racoon", "cat"], ["raccoon"])
    ['racoon: did you mean raccoon? The model was fine-tuned on that name']
    """
    by_letters = {_letters(name): name for name in known}
    strange = [name for name in dict.fromkeys(names) if _letters(name) not in by_letters]
    near = {name: get_close_matches(_letters(name), list(by_letters), 1, SIMILARITY) for name in strange}
    lines = [
        f"{name}: did you mean {by_letters[found[0]]}? The model was fine-tuned on that name"
        for name, found in near.items()
        if found
    ]
    if not lines and known and len(strange) == len(dict.fromkeys(names)) > 0:
        shown = listed(known, MAX_SHOWN)
        lines.append(f"the model was fine-tuned on {shown}, and on none of the names asked for: it may miss them")
    return lines


def _letters(name: str) -> str:
    """A name as prompts see it, without the spaces around it."""
    return " ".join(name.casefold().split())
