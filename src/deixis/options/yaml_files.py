"""Options to and from YAML and plain values, checked key by key."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml

from deixis.data.reading import require_regular
from deixis.data.yaml_text import parse_yaml
from deixis.errors import DataError, OptionError
from deixis.options.fields import options_of
from deixis.options.old_names import current_values, require_present
from deixis.options.types import converted, hints_of
from deixis.text import one_line

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
        raise OptionError(f"{path}: cannot be read as YAML ({one_line(error)})") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise OptionError(f"{path}: expected lines of 'key: value', got a {type(values).__name__}")
    return options_from(kind, values, str(path))


def options_from(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Options from plain values; see `read_options`."""
    hints = hints_of(kind)
    given = {}
    current = current_values(kind, values)
    if {"resume", "experiment_name"} <= hints.keys() and isinstance(current.get("resume"), str):
        current = _resumed(kind, current, where)
    require_present(kind, current, f"{where}: ")
    for key, value in current.items():
        if key not in hints:
            near = get_close_matches(str(key), hints, n=1, cutoff=0.0)
            raise OptionError(f"{where}: unknown key {key!r}; the nearest valid key is {near[0]!r}")
        given[key] = converted(value, hints[key], f"{where}: {key}", is_yaml=True)
    return kind(**given)


def run_folder(value: str, where: str) -> Path:
    """The folder of a run, given that or its `checkpoints/last`.

    Raises:
        OptionError: there is none.
    """
    folder = Path(value).resolve()
    if folder.name == "last" and folder.parent.name == "checkpoints":
        folder = folder.parents[1]
    if not folder.is_dir():
        raise OptionError(f"{where}: {value} is not a folder; give a run's folder or its checkpoints/last")
    return folder


def _resumed(kind: type, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Values with `resume: PATH`, on top of those of the run there, as values with `resume: true`."""
    folder = run_folder(values["resume"], f"{where}: resume")
    file = folder / "config.yaml"
    known = plain_values(read_options(kind, file)) if file.is_file() else {}
    place = {"output": str(folder.parent), "experiment_name": folder.name}
    return {**known, **values, "resume": True, "overwrite": False, "auto_resume": False, **place}


def plain_values(options: Any) -> dict[str, Any]:
    """Options as values that YAML and JSON write and `options_from` reads back."""
    return {name: _plain(getattr(options, name)) for name in option_names(type(options))}


def write_options(options: Any, path: Path) -> None:
    """Write options as YAML; the file starts the same run again."""
    write_values(plain_values(options), path)


def write_values(values: Mapping[str, Any], path: Path) -> None:
    """Write the values of options, as `plain_values` gives them."""
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True), encoding="utf-8")


def option_names(kind: type) -> list[str]:
    """The YAML keys of a kind of options, group by group."""
    return list(options_of(kind))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
