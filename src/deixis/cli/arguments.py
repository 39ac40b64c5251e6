"""Flags and YAML files to options: the only place that knows how a command line is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import field, fields, is_dataclass, make_dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from deixis.cli.wrong_flags import require_known_flags, what_is_wrong
from deixis.errors import OptionError
from deixis.options.yaml_files import read_options

T = TypeVar("T")
EXIT_WRONG_USE = 2
PACKAGED = Path(__file__).parent.parent / "recipes" / "configs"
CONFIG_FLAG = Annotated[
    Path | None, tyro.conf.arg(help="YAML file with values for any of the flags below; flags given here override it.")
]


def parse(kind: type[T], arguments: Sequence[str], command: str, examples: str) -> T:
    """Options of a command: defaults, then the values of `--config FILE.yaml`, then the flags.

    Prints the help and exits with code 0 for `--help`.

    Raises:
        OptionError: a flag that does not exist, a value of the wrong type; the YAML file has an unknown key or value.
    """
    arguments = _resume_from(list(arguments), kind)
    config = _config_of(arguments)
    default = kind() if config is None else read_options(kind, config)
    whole = make_dataclass(
        "Arguments",
        [("command", kind, default), ("config", CONFIG_FLAG, field(default=None))],
        frozen=True,
    )
    tyro_options: dict[str, Any] = {
        "prog": f"deixis {command}",
        "description": f"{(kind.__doc__ or '').strip()}\n\n{examples.strip()}",
        "config": (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    }
    require_known_flags(arguments, [one.name for one in fields(kind)], command)  # type: ignore[arg-type]
    parsed: Any = _in_one_line(lambda: tyro.cli(whole, args=list(arguments), **tyro_options), arguments, command)
    options: T = parsed.command
    return options


def _in_one_line(parse_words: Callable[[], Any], arguments: Sequence[str], command: str) -> Any:
    """What a parser returns; where it prints a box of what is wrong and exits with 2, that as an `OptionError`."""
    told, width = StringIO(), os.environ.get("COLUMNS")
    if not {"-h", "--help"} & set(arguments):
        os.environ["COLUMNS"] = "1000"  # so that no line of the box is broken
    try:
        with redirect_stderr(told):
            return parse_words()
    except SystemExit as stopped:
        if stopped.code != EXIT_WRONG_USE:
            raise
    finally:
        os.environ.pop("COLUMNS", None)
        os.environ |= {} if width is None else {"COLUMNS": width}
    raise OptionError(f"{what_is_wrong(told.getvalue())}; see 'deixis {command} --help'")


def _resume_from(arguments: list[str], kind: type) -> list[str]:
    """`--resume PATH`, of a run or of its `checkpoints/last`, as `--resume` with that run's folder and options."""
    names = {field.name for field in fields(kind)} if is_dataclass(kind) else set()
    if not {"resume", "experiment_name"} <= names:
        return arguments
    for position, argument in enumerate(arguments):
        following = arguments[position + 1 : position + 2]
        if argument.startswith("--resume="):
            value, rest = argument.removeprefix("--resume="), arguments[position + 1 :]
        elif argument == "--resume" and following and not following[0].startswith("-"):
            value, rest = following[0], arguments[position + 2 :]
        else:
            continue
        folder = Path(value).resolve()
        if folder.name == "last" and folder.parent.name == "checkpoints":
            folder = folder.parents[1]
        if not folder.is_dir():
            raise OptionError(f"--resume: {value} is no folder; give a run's folder or its checkpoints/last")
        options = folder / "config.yaml"
        known = ["--config", str(options)] if options.is_file() and not _config_of(arguments) else []
        place = ["--output", str(folder.parent), "--experiment-name", folder.name]
        return [*arguments[:position], *known, "--resume", *place, *rest]
    return arguments


def _config_of(arguments: Sequence[str]) -> Path | None:
    """The value of `--config`, if it is there: a file, or the name of one that comes with deixis."""
    for position, argument in enumerate(arguments):
        following = arguments[position + 1 : position + 2]
        if argument.startswith("--config="):
            return _packaged(argument.removeprefix("--config="))
        if argument == "--config" and following:
            return _packaged(following[0])
    return None


def _packaged(name: str) -> Path:
    ours = PACKAGED / name
    return ours if not Path(name).exists() and "/" not in name and ours.is_file() else Path(name)
