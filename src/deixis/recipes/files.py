"""Options to and from YAML and plain values, checked key by key."""

from __future__ import annotations

import types
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from deixis.data.reading import require_regular
from deixis.data.yaml_text import parse_yaml
from deixis.errors import DataError, OptionError

T = TypeVar("T")


def read_options(kind: type[T], path: Path) -> T:
    """Options from a YAML file; keys it does not give keep their defaults.

    Raises:
        OptionError: the file cannot be read, is no mapping, or has an unknown key or a value of the wrong type.
    """
    try:
        require_regular(path)
        values = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except DataError as error:
        raise OptionError(str(error)) from error
    except (OSError, ValueError) as error:
        raise OptionError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise OptionError(f"{path}: got a {type(values).__name__}, wanted lines of 'key: value'")
    return options_from(kind, values, str(path))


def options_from(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Options from plain values; see `read_options`."""
    hints = get_type_hints(kind)
    given = {}
    for key, value in values.items():
        if key not in hints:
            near = get_close_matches(str(key), hints, n=1, cutoff=0.0)
            raise OptionError(f"{where}: unknown key {key!r}; the nearest valid key is {near[0]!r}")
        given[key] = _converted(value, hints[key], f"{where}: {key}")
    return kind(**given)


def plain_values(options: Any) -> dict[str, Any]:
    """Options as values that YAML and JSON write and `options_from` reads back."""
    return {key: _plain(value) for key, value in asdict(options).items()}


def write_options(options: Any, path: Path) -> None:
    """Write options as YAML; the file starts the same run again."""
    path.write_text(yaml.safe_dump(plain_values(options), sort_keys=False, allow_unicode=True), encoding="utf-8")


def option_names(kind: type) -> list[str]:
    """The YAML keys of a kind of options."""
    return [field.name for field in fields(kind)]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _converted(value: Any, hint: Any, where: str) -> Any:
    """A YAML value as an option's type. `1e-4` is a string to YAML 1.1 and a number here."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _converted(value, next(a for a in arguments if a is not type(None)), where)
    if origin is Literal:
        if value not in arguments:
            raise OptionError(f"{where}: got {value!r}, wanted one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            if arguments[-1] is not Ellipsis:
                raise OptionError(f"{where}: got {value!r}, wanted a list")
            value = [value]  # `data: labels.json` is a list of one
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise OptionError(f"{where}: got {len(value)} values, wanted {len(inner)}")
        return tuple(_converted(item, kind, where) for item, kind in zip(value, inner, strict=True))
    return _scalar(value, hint, where)


def _scalar(value: Any, hint: type, where: str) -> Any:
    wrong = OptionError(f"{where}: got {value!r}, wanted a {hint.__name__}")
    if hint is bool or isinstance(value, bool):
        if hint is bool and isinstance(value, bool):
            return value
        raise wrong
    if hint in (str, Path):
        if isinstance(value, str | Path):
            return hint(value)
        raise wrong
    if hint is int and not isinstance(value, int):
        raise wrong
    if isinstance(value, str | int | float):
        try:
            return hint(value)
        except ValueError:
            raise wrong from None
    raise wrong
