"""Text of users' files where people and terminals read it: names without control characters, lines that do nothing."""

from __future__ import annotations

import re

# Controls that terminals act on, halves of characters (bytes of file names that are no UTF-8, broken JSON escapes),
# and the overrides that turn the direction of text around. Line ends and tabs are ours.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_OVERRIDES = re.compile("[\u202a-\u202e\u2066-\u2069]")
_HALVES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Text for a terminal, with what a terminal would act on, or cannot encode, as JSON's escapes.

    >>> printable("a\x1b[31m \udce9")
    'a\\u001b[31m \\udce9'
    """
    return _UNSHOWABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def clean_name(name: str) -> str:
    r"""A class name or phrase as it can be prompted, printed and written: blanks for controls, no half characters.

    >>> clean_name(" red\tcar\x00 ")
    'red car'
    """
    if name.isascii() and name.isprintable():
        return name.strip()
    name = _OVERRIDES.sub("", _CONTROLS.sub(" ", name))
    return whole_characters(name).strip()


def whole_characters(text: str) -> str:
    """Text that UTF-8 holds: half characters become the sign for an unknown one, and places in the text stay."""
    return _HALVES.sub("\ufffd", text)
