r"""Several wordings for a class, as a user types them: `car=car,automobile,sedan`.

The text up to the first `=` is the class, what follows are its wordings, divided by commas. A name that the data or the
model knows is taken as it stands, whatever signs it has; elsewhere `\=` and `\,` are signs of a name. A full stop never
divides: prompts have a space in its place, as in any name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from deixis.data.detect.chunking import name_tokens
from deixis.data.detect.prompts import PromptTokenizer, normalise_name
from deixis.errors import OptionError, PromptError
from deixis.text import clean_name

Wordings = Mapping[str, Sequence[str]]
"""The wordings of each class; a class that is not among them is asked for by its own name."""

_EQUALS, _COMMA = re.compile(r"(?<!\\)="), re.compile(r"(?<!\\),")  # without a backslash before it


def read_wordings(text: str, known: Collection[str] = (), flag: str = "--names") -> tuple[str, tuple[str, ...]]:
    r"""(class, wordings) of a text; without wordings where it is a name alone.

    Args:
        known: names of classes.
        flag: where the text was given, for messages.

    Raises:
        OptionError: no class or no wording, or several classes in one text.

    >>> read_wordings("car=car, automobile"), read_wordings(r"a\=b"), read_wordings("x=1", known=["x=1"])
    (('car', ('car', 'automobile')), ('a=b', ()), ('x=1', ()))
    """
    if text in known or clean_name(text) in known or not _EQUALS.search(text):
        return (text if text in known else _plain(text)), ()
    signs = [place for place, sign in enumerate(text) if sign == "="]
    # A known name may have signs of its own: the class ends at the first sign that such a name stands before.
    of_known = [place for place in signs if _plain(text[:place]) in known or clean_name(text[:place]) in known]
    at = of_known[0] if of_known else next(found.start() for found in _EQUALS.finditer(text))
    left, right = text[:at], text[at + 1 :]
    name = clean_name(left) if clean_name(left) in known else _plain(left)
    wordings = tuple(dict.fromkeys(word for word in map(_plain, _COMMA.split(right)) if word))
    if not name or not wordings:
        raise OptionError(f"{flag}: expected CLASS=WORDING,WORDING, got {text!r}")
    if _EQUALS.search(right) or (not of_known and _COMMA.search(left)):
        raise OptionError(
            f"{flag} {text!r}: has signs of several classes; give each class a text of its own, as in {flag} "
            r"'car=car,automobile' 'bus=bus,coach', or write \= and \, for signs of a name"
        )
    return name, wordings


def text_of(name: str, wordings: Sequence[str] = ()) -> str:
    r"""The text that `read_wordings` reads as this class.

    >>> text_of("a=b", ["a b", "x, y"])
    'a\\=b=a b,x\\, y'
    """
    quoted = [re.sub("([=,])", r"\\\1", one) for one in (name, *wordings)]
    return quoted[0] + ("=" + ",".join(quoted[1:]) if wordings else "")


def wordings_of_classes(texts: Sequence[str], names: Sequence[str], where: str) -> Wordings:
    """The wordings of a data set's classes.

    Args:
        where: the data, for messages.

    Raises:
        OptionError: a class that the data does not have.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, wordings = read_wordings(text, names)
        if name not in names:
            shown = ", ".join(map(repr, names[:12]))
            raise OptionError(f"--names {text!r}: no class {name!r} in {where}; its classes: {shown}")
        if wordings:
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *wordings)))
    require_distinct(names, found)
    return found


def require_distinct(names: Sequence[str], wordings: Wordings) -> None:
    """Raises PromptError for a wording of two classes, or a blank one."""
    first: dict[str, str] = {}
    for name in names if wordings else ():
        for wording in wordings.get(name, (name,)):
            if not wording.strip():
                raise PromptError(f"class {name!r} has a blank wording; remove it")
            other = first.setdefault(normalise_name(wording), name)
            if other != name:
                raise PromptError(f"{wording!r} is a wording of {other!r} and of {name!r}; it can stand for one class")


def worded(
    names: Sequence[str], wordings: Wordings, tokenizer: PromptTokenizer
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """All wordings of all classes, which are asked for, and the class of each.

    Of wordings of a class that the tokenizer reads alike, the first.

    Raises:
        PromptError: two classes have the same wording.
    """
    require_distinct(names, wordings)
    asked: list[str] = []
    rows: list[int] = []
    for row, name in enumerate(names):
        words = tuple(dict.fromkeys(wordings.get(name, (name,))))
        # the first of each sequence of tokens
        # In reverse, so that it is written last; a lone wording need not be tokenised.
        kept = {name_tokens(word, tokenizer): word for word in reversed(words)} if len(words) > 1 else {(): words[0]}
        own = [word for word in words if word in kept.values()]
        asked += own
        rows += [row] * len(own)
    return tuple(asked), tuple(rows)


def checked_wordings(names: Mapping[str, Any]) -> Wordings:
    """Classes with their wordings as a caller gives them; one wording may be a text.

    Raises:
        PromptError: something else than texts.
    """
    found = {name: (words,) if isinstance(words, str) else words for name, words in names.items()}
    for name, words in found.items():
        fine = isinstance(words, list | tuple) and words and all(isinstance(word, str) for word in words)
        if not isinstance(name, str) or not fine:
            raise PromptError(f"names: expected a list of wordings for each class, got {name!r}: {words!r}")
    return {name: tuple(words) for name, words in found.items()}


def _plain(text: str) -> str:
    r"""A name without the marks of its signs."""
    return clean_name(re.sub(r"\\([=,])", r"\1", text))
