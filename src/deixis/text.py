"""Cleaning text from users' files: names without control characters, and text that is safe to print."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Control characters that terminals interpret, lone surrogates (from file names that are not UTF-8, or broken JSON
# escapes), and overrides of the text direction. Line ends and tabs come from deixis and stay.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_OVERRIDES = re.compile("[\u202a-\u202e\u2066-\u2069]")
_HALVES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Text for a terminal: characters that it would interpret, or cannot encode, become JSON escapes.

    >>> printable("a\x1b[31m \udce9")
    'a\\u001b[31m \\udce9'
    """
    return _UNSHOWABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(error: BaseException, most: int | None = None) -> str:
    r"""The message of an error on one line, its first characters; the name of its type where it has none.

    >>> one_line(ValueError("no\n  number")), one_line(EOFError())
    ('no number', 'EOFError')
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


def listed(names: Sequence[str], most: int) -> str:
    """Names in a row, the first of many.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def tallied(counts: Mapping[str, int]) -> str:
    """How many there are of each kind, sorted by kind.

    >>> tallied({"points": 2, "cuboid": 1})
    '1 cuboid, 2 points'
    """
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def clean_name(name: str) -> str:
    r"""A class name or phrase that can be used in prompts, printed and written: control characters become spaces.

    >>> clean_name(" red\tcar\x00 ")
    'red car'
    """
    if name.isascii() and name.isprintable():
        return name.strip()
    name = _OVERRIDES.sub("", _CONTROLS.sub(" ", name))
    return whole_characters(name).strip()


def whole_characters(text: str) -> str:
    """Text that UTF-8 can encode: lone surrogates become U+FFFD, so positions in the text do not change."""
    return _HALVES.sub("\ufffd", text)
