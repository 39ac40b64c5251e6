"""The types of options: what a value is turned into, and what is refused, from YAML, from the shell and from Python."""

from __future__ import annotations

import math
import types
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deixis.errors import OptionError

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", Path: "a path"}


class Options:
    """Options whose values have the types that their fields say, however they were made.

    A value that means the same is turned into its field's type: a text into a tuple of one or into a path, a list into
    a tuple, an integer into a number. `DetectTrainOptions(data="x.json")` names one file, not six letters.

    Raises:
        OptionError: a value of another type, or a number that is not finite.
    """

    def __post_init__(self) -> None:
        hints = hints_of(type(self))
        for field in fields(self):  # type: ignore[arg-type]  # every kind of options is a dataclass
            value = getattr(self, field.name)
            fitting = converted(value, hints[field.name], f"--{field.name.replace('_', '-')}")
            object.__setattr__(self, field.name, fitting)


_HINTS: dict[type, dict[str, Any]] = {}


def hints_of(kind: type) -> dict[str, Any]:
    """The type of each field."""
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind)
    return _HINTS[kind]


def converted(value: Any, hint: Any, where: str, is_yaml: bool = False) -> Any:
    """A value as an option's type.

    Args:
        where: the option, for messages.
        is_yaml: numbers may be texts: `1e-4` is a text to YAML 1.1.

    Raises:
        OptionError: it is of another type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return converted(value, next(a for a in arguments if a is not type(None)), where, is_yaml)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise OptionError(f"{where}: got {value!r}, wanted one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        inner = _inner(value, arguments, where)
        values = value if isinstance(value, list | tuple) else [value]  # `data: labels.json` is a list of one
        return tuple(converted(item, kind, where, is_yaml) for item, kind in zip(values, inner, strict=True))
    return _scalar(value, hint, where, is_yaml)


def _inner(value: Any, arguments: tuple[Any, ...], where: str) -> list[Any]:
    """The types of a tuple's values."""
    if not isinstance(value, list | tuple):
        if arguments[-1] is not Ellipsis or value is None:
            raise OptionError(f"{where}: got {value!r}, wanted a list")
        return [arguments[0]]
    inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(inner) != len(value):
        raise OptionError(f"{where}: got {len(value)} values, wanted {len(inner)}")
    return inner


def _scalar(value: Any, hint: type, where: str, is_yaml: bool) -> Any:
    fitting: Any = None
    if hint is bool or isinstance(value, bool):
        fitting = value if hint is bool and isinstance(value, bool) else None
    elif hint in (str, Path):
        fitting = hint(value) if isinstance(value, str | Path) else None
    elif hint is int:
        fitting = int(value) if isinstance(value, Integral) else None
    elif isinstance(value, Real) or (is_yaml and isinstance(value, str)):
        fitting = _number(value)
    if fitting is None:
        raise OptionError(f"{where}: got {value!r}, wanted {_WORDS.get(hint, hint.__name__)}")
    return fitting


def _number(value: Any) -> float | None:
    """The value as a finite number; None where it is none."""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
