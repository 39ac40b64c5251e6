"""Flags and YAML files to options: the only place that knows how a command line is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from deixis.cli.help import command_help
from deixis.cli.wrong_flags import unknown_flag
from deixis.errors import OptionError
from deixis.options.config import ConfigListOptions, ConfigShowOptions
from deixis.options.fields import Option, options_of
from deixis.options.old_names import old_names, require_present
from deixis.options.types import bare, converted, in_words
from deixis.options.yaml_files import read_options, run_folder

T = TypeVar("T")


def parse(kind: type[T], words: Sequence[str], command: str, examples: str = "") -> T:
    """Options of a command: defaults, then the values of `--config FILE.yaml`, then the flags.

    Prints the help and exits with code 0 for `--help` and `--help-all`.

    Raises:
        OptionError: an unknown flag or key, a value of another type or outside its range.
    """
    if {"-h", "--help", "--help-all"} & set(words):
        print(command_help(kind, command, examples, everything="--help-all" in words))
        raise SystemExit(0)
    known: dict[str, Option] = options_of(kind)  # type: ignore[arg-type]  # mypy: no type[T] is hashable
    given, config = dict[str, Any](), None
    for flag, values in _flags(_resume_from(list(words), kind), command):
        name = old_names(kind).get(flag[2:].replace("-", "_"), flag[2:].replace("-", "_"))
        require_present(kind, {name.removeprefix("no_"): values})
        switch = known.get(name.removeprefix("no_"))
        if name == "config":
            config = config_file(_value(Path, values, flag, command))
        elif name in known:
            plain = _value(known[name].hint, values, flag, command)
            given[name] = converted(plain, known[name].hint, flag, is_shell=True)
        elif switch and bare(switch.hint) is bool:
            given[switch.name] = not converted(_value(bool, values, flag, command), bool, flag)
        else:
            raise OptionError(unknown_flag(flag, list(known), command))
    return replace(kind() if config is None else read_options(kind, config), **given)  # type: ignore[type-var]


def _flags(words: Sequence[str], command: str) -> Iterator[tuple[str, list[str]]]:
    """Each flag of a command line with the words that follow it."""
    # a negative number is a value
    starts = [place for place, word in enumerate(words) if re.match(r"--[A-Za-z]", word)]
    if words and starts[:1] != [0]:
        raise OptionError(f"unexpected {words[0]!r}: options start with '--'; see 'deixis {command} --help'")
    for start, end in pairwise([*starts, len(words)]):
        flag, equals, value = words[start].partition("=")
        yield flag, [value] * bool(equals) + list(words[start + 1 : end])


def _value(hint: Any, values: list[str], flag: str, command: str) -> Any:
    """The words after a flag as a value for `converted`: a list, true or false, or one text."""
    kind = bare(hint)
    if values == ["None"] and type(None) in get_args(hint):
        return None
    if get_origin(kind) is tuple:
        return values
    if len(values) > 1:
        raise OptionError(f"unexpected {values[1]!r} after {flag} {values[0]}; see 'deixis {command} --help'")
    if kind is bool:
        word = (values or ["true"])[0]
        return {"true": True, "false": False}.get(word.lower(), word)  # anything else is refused by `converted`
    if not values:
        raise OptionError(f"{flag}: expected {in_words(kind)}, got nothing")
    return values[0]


def _resume_from(arguments: list[str], kind: type) -> list[str]:
    """`--resume PATH`, of a run or of its `checkpoints/last`, as `--resume` with that run's folder and options."""
    if not {"resume", "experiment_name"} <= options_of(kind).keys():
        return arguments
    for position, argument in enumerate(arguments):
        following = arguments[position + 1 : position + 2]
        if argument.startswith("--resume="):
            value, rest = argument.removeprefix("--resume="), arguments[position + 1 :]
        elif argument == "--resume" and following and not following[0].startswith("-"):
            value, rest = following[0], arguments[position + 2 :]
        else:
            continue
        folder = run_folder(value, "--resume")
        options = folder / "config.yaml"
        has_config = any(word.split("=")[0] == "--config" for word in arguments)
        known = ["--config", str(options)] if options.is_file() and not has_config else []
        place = ["--output", str(folder.parent), "--experiment-name", folder.name]
        return [*arguments[:position], *known, "--resume", *place, *rest]
    return arguments


FOLDER = Path(__file__).parent.parent / "recipes" / "configs"


def config_file(name: str) -> Path:
    """The file that `--config` means: one of the user's own, or else a preset, with or without its ending.

    Raises:
        OptionError: there is neither.
    """
    own, preset = Path(name), FOLDER / f"{name.removesuffix('.yaml')}.yaml"
    if own.exists():
        return own
    if "/" in name or not preset.is_file():
        raise OptionError(f"--config: there is no file {name!r}; presets are {', '.join(_presets())}")
    return preset


def list_presets(options: ConfigListOptions) -> None:
    """Print the name and the first line of each preset."""
    for name, path in _presets().items():
        print(f"{name:<22} {path.read_text(encoding='utf-8').splitlines()[0].removeprefix('#').strip()}")
    print(
        "\nUse one: deixis detect train --config NAME, or refer train. Change one: deixis config show NAME > mine.yaml"
    )


def show_preset(options: ConfigShowOptions) -> None:
    """Print a preset.

    Raises:
        OptionError: there is no such preset.
    """
    presets = _presets()
    name = options.name.removesuffix(".yaml")
    if name not in presets:
        raise OptionError(f"there is no preset {options.name!r}; presets are {', '.join(presets)}")
    print(presets[name].read_text(encoding="utf-8"), end="")


def _presets() -> dict[str, Path]:
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
