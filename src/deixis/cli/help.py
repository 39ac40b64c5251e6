"""What `--help` prints: options in titled groups, each with its values, its meaning and its default."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from deixis.options.fields import Option, options_of
from deixis.options.types import bare

LEFT, WIDEST = 30, 120  # columns of the flags, and of a line at most
_PLACEHOLDERS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def command_help(kind: type, command: str, examples: str = "", everything: bool = False) -> str:
    """The help of a command.

    Args:
        everything: show the rarely used options too.
    """
    width = min(shutil.get_terminal_size((WIDEST, 40)).columns, WIDEST)
    options = options_of(kind).values()
    shown = sorted((one for one in options if everything or not one.is_rare), key=lambda one: not one.is_required)
    lines = [f"usage: deixis {command} [OPTIONS]", "", *textwrap.wrap(" ".join((kind.__doc__ or "").split()), width)]
    lines += ["", examples.strip()] if examples.strip() else []
    for title in dict.fromkeys(option.title for option in shown):
        group = [option for option in shown if option.title == title]
        lines += ["", title or "Options"]
        lines += [line for option in group for line in _entry(_invocation(option), _meaning(option), width)]
    config = "YAML file with values for any of these options, or a preset ('deixis config list'); flags override it."
    lines += ["", "For every command", *_entry("--config FILE", config, width)]
    if hidden := len(options) - len(shown):
        lines += _entry("--help-all", f"Show the rarely used options too ({hidden}).", width)
    return "\n".join(lines)


def _entry(left: str, text: str, width: int) -> list[str]:
    """A flag with its meaning beside it, or below it where the flag is long or the terminal narrow."""
    indent = LEFT + 2 if width >= 80 else 6
    lines = textwrap.wrap(text, width - indent) or [""]
    if len(left) + 2 < indent:
        return [f"  {left}".ljust(indent) + lines[0], *(" " * indent + line for line in lines[1:])]
    return [f"  {left}", *(" " * indent + line for line in lines)]


def _invocation(option: Option) -> str:
    kind = bare(option.hint)
    if kind is bool:
        no = f", --no-{option.flag[2:]}" if option.default is not False else ""
        return f"{option.flag}{no}"
    return f"{option.flag} {_placeholder(kind)}"


def _placeholder(kind: Any) -> str:
    """What stands for the value of a type."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        each = _placeholder(bare(inner[0]))
        return f"{each} ..." if inner[-1] is Ellipsis else " ".join([each] * len(inner))
    return _PLACEHOLDERS[kind]


def _meaning(option: Option) -> str:
    """The help of an option with its default, if that says more than the text."""
    value, text = option.default, option.help
    if option.is_required:
        return f"{text} (required)"
    if value is None or value is False or value in ("", (), Path()):
        return text
    shown = "on" if value is True else " ".join(map(str, value)) if isinstance(value, tuple) else value
    return f"{text} (default: {shown})"
