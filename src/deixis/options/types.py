"""The types of options: what a value is converted to, and what is invalid, from YAML, from the shell and from Python.

What a field states besides its type, as `Annotated[int, Range(1)]`, are the marks of `options.marks`.
"""

from __future__ import annotations

import math
import types
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from deixis.errors import OptionError

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path"}
_PLURALS = {int: "integers", float: "numbers", str: "texts", Path: "paths"}


Group = TypeVar("Group", bound="Options")


def flag_of(name: str) -> str:
    """An option as it is typed.

    >>> flag_of("batch_size")
    '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


class Mark:
    """Something that a field states besides its type; see `options.marks`."""

    def plain(self, value: Any) -> Any:
        """A value as the field's type is made of, from another form that the mark allows."""
        return value

    def require(self, name: str, value: Any) -> None:
        """Raises OptionError for a value of the field that the mark excludes."""

    def refuse(self, where: str, value: Any) -> None:
        """The same before the value's type is checked; `where` is the option, for the message."""


class Options:
    """Options whose values have the types that their fields state, however they were made.

    An equivalent value is converted to its field's type: text to a tuple of one or to a path, a list to a tuple, an
    integer to a number. `DetectTrainOptions(data="x.json")` names one file, not six letters.

    Raises:
        OptionError: a value of another type or a number that is not finite.
    """

    def __post_init__(self) -> None:
        hints = hints_of(type(self))
        for field in fields(self):  # type: ignore[arg-type]  # every kind of options is a dataclass
            value = getattr(self, field.name)
            fitting = converted(value, hints[field.name], flag_of(field.name))
            object.__setattr__(self, field.name, fitting)

    def group(self, kind: type[Group]) -> Group:
        """One group of these options, without the others: `options.group(Loop).epochs`."""
        return kind(**{field.name: getattr(self, field.name) for field in fields(kind)})  # type: ignore[arg-type]

    def check(self) -> None:
        """Check each value against the marks of its field; kinds add what their values must be together.

        Raises:
            OptionError: the first invalid value, or a required option that was not given.
        """
        for name, hint in hints_of(type(self)).items():
            for mark in marks_of(hint):
                mark.require(name, getattr(self, name))


_HINTS: dict[type, dict[str, Any]] = {}


def hints_of(kind: type) -> dict[str, Any]:
    """The type of each field, with its marks."""
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind, include_extras=True)
    return _HINTS[kind]


def bare(hint: Any) -> Any:
    """A field's type without its marks and without None."""
    while get_origin(hint) in (Annotated, Union, types.UnionType):
        hint = next(inner for inner in get_args(hint) if inner is not type(None))
    return hint


def in_words(hint: Any) -> str:
    """What a value of a type without marks is, as messages name it."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    return _WORDS.get(hint) or hint.__name__


def marks_of(hint: Any) -> tuple[Mark, ...]:
    """The marks of a field's type and of its parts, as `RARE`, `Required` or a `Range`."""
    own = (hint,) if isinstance(hint, Mark) else ()
    return (*own, *(mark for part in get_args(hint) for mark in marks_of(part)))


def converted(value: Any, hint: Any, where: str, is_yaml: bool = False, is_shell: bool = False) -> Any:
    """A value as an option's type.

    Args:
        where: the option, for messages.
        is_yaml: a number may be text: `1e-4` is text to YAML 1.1.
        is_shell: every number is text.

    Raises:
        OptionError: it is of another type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        for mark in arguments[1:]:
            value = mark.plain(value)
            mark.refuse(where, value)
        return converted(value, arguments[0], where, is_yaml, is_shell)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return converted(value, next(a for a in arguments if a is not type(None)), where, is_yaml, is_shell)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise OptionError(f"{where}: expected {in_words(hint)}, got {value!r}")
        return value
    if origin is tuple:
        inner = _inner(value, arguments, where)
        values = value if isinstance(value, list | tuple) else [value]  # `data: labels.json` is a list of one
        return tuple(converted(item, kind, where, is_yaml, is_shell) for item, kind in zip(values, inner, strict=True))
    return _scalar(value, hint, where, is_yaml, is_shell)


def _inner(value: Any, arguments: tuple[Any, ...], where: str) -> list[Any]:
    """The types of a tuple's values."""
    if not isinstance(value, list | tuple):
        if arguments[-1] is not Ellipsis or value is None:
            raise OptionError(f"{where}: expected a list, got {value!r}")
        return [arguments[0]]
    inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(inner) != len(value):
        got = " ".join(map(repr, value)) or "nothing"
        raise OptionError(f"{where}: expected {len(inner)} {_PLURALS.get(inner[0], 'values')}, got {got}")
    return inner


def _scalar(value: Any, hint: type, where: str, is_yaml: bool, is_shell: bool) -> Any:
    fitting: Any = None
    if hint is bool or isinstance(value, bool):
        fitting = value if hint is bool and isinstance(value, bool) else None
    elif hint in (str, Path):
        fitting = hint(value) if isinstance(value, str | Path) else None
    elif hint is int:
        fitting = _integer(value) if is_shell else int(value) if isinstance(value, Integral) else None
    elif isinstance(value, Real) or ((is_yaml or is_shell) and isinstance(value, str)):
        fitting = _number(value)
    if fitting is None:
        raise OptionError(f"{where}: expected {in_words(hint)}, got {value!r}")
    return fitting


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _number(value: Any) -> float | None:
    """The value as a finite number; None where it is not one."""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
