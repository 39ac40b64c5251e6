"""What a detector is asked for: names as they are typed, or those that it was fine-tuned on, each with its wordings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from deixis.data.detect.wordings import Wordings, read_wordings, require_distinct, text_of
from deixis.errors import OptionError
from deixis.models.checkpoints import stored_record
from deixis.recipes.run.outputs import warn
from deixis.text import listed

SIMILARITY = 0.75  # of 1; "racoon" and "raccoon" have 0.92, "dog" and "frog" 0.57
MAX_SHOWN = 5


def stored_names(model: str) -> tuple[str, ...]:
    """The names in the record of a model, by its name; none where it has no record."""
    return stored_record(model).names


def names_or_stored(texts: Sequence[str], model: str) -> Wordings:
    """What to look for: each class once, with its wordings; the classes given, or those the model was fine-tuned on.

    A name that the model does not know, but nearly, is questioned on stderr.

    Args:
        texts: names, or names with wordings: see `read_wordings`.

    Raises:
        OptionError: none are given, and the model stores none.
        PromptError: two classes have the same wording.
    """
    record = stored_record(model)
    if not texts and not record.names:
        raise OptionError(f"--names is required: {model} stores no names; as in --names raccoon 'traffic light'")
    found: dict[str, tuple[str, ...]] = {}
    for text in texts or map(text_of, record.names):
        name, wordings = read_wordings(text, record.names)
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), *wordings)))
    asked = {name: given or tuple(record.wordings.get(name, ())) or (name,) for name, given in found.items()}
    for question in questions([name for name, given in found.items() if not given], record.names):
        warn(question)
    require_distinct(list(asked), asked)
    return asked


def wordings_lines(asked: Wordings) -> list[str]:
    """A line for each class that is not asked for by its name alone.

    >>> wordings_lines({"cat": ("cat",), "car": ("car", "sedan")})
    ["'car' is asked for as 'car', 'sedan'"]
    """
    return [
        f"{name!r} is asked for as {', '.join(map(repr, wordings))}"
        for name, wordings in asked.items()
        if tuple(wordings) != (name,)
    ]


def separate_names(names: Sequence[str], known: Sequence[str] = ()) -> list[str]:
    """Texts for `names_or_stored`, of which `"cat. dog."` and `"cat, dog"` are two; a warning says how they were read.

    Args:
        known: names that are taken as they stand.

    >>> separate_names(["St. Bernard", "cat"]), separate_names(["car=car,automobile"])
    (['St. Bernard', 'cat'], ['car=car,automobile'])
    """
    found: list[str] = []
    for name in names:
        parts = [name]
        if name not in known and not re.search(r"(?<!\\)=", name):
            # "cat. dog." as in Grounding DINO's own prompts
            parts = re.split(r"\. " if _is_prompt(name) else r"(?<!\\),", name.strip().rstrip("."))
            parts = [part.strip() for part in parts if part.strip()]
        if len(parts) > 1:
            warn(f"--names {name!r}: taken as {len(parts)} names: {', '.join(map(repr, parts))}")
            found += parts
        else:
            found.append(name)
    return found


def _is_prompt(name: str) -> bool:
    """Whether a text ends with a full stop and has another, as Grounding DINO's prompts do."""
    return name.rstrip().endswith(".") and ". " in name.strip()


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
