"""The options of a command as its help and its flags need them: names, types, texts, titles."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING, dataclass, fields
from functools import cache
from itertools import pairwise
from typing import Any

from deixis.options.groups import groups_of
from deixis.options.marks import RARE, Required
from deixis.options.types import Mark, Options, flag_of, hints_of, marks_of


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: as Python and YAML have it, `batch_size`.
        hint: its type.
        marks: of the field, and of the same field in its group where the command has another default.
        help: the string under its field.
        title: the docstring of its group; empty for an option of the command itself.
    """

    name: str
    hint: Any
    marks: tuple[Mark, ...]
    default: Any
    help: str
    title: str

    @property
    def flag(self) -> str:
        """As it is typed."""
        return flag_of(self.name)

    @property
    def is_rare(self) -> bool:
        """Whether only `--help-all` shows it."""
        return RARE in self.marks

    @property
    def is_required(self) -> bool:
        """Whether the command needs it."""
        return any(isinstance(mark, Required) for mark in self.marks)


@cache
def options_of(kind: type) -> dict[str, Option]:
    """The options of a command by their names: its own, then those of each class that it derives from, a group."""
    helps, own = _helps(kind), {field.name: field for field in fields(kind)}
    groups = {field.name: group for group in groups_of(kind) for field in fields(group)}  # type: ignore[arg-type]
    found = {}
    for name in (*(name for name in own if name not in groups), *groups):
        field, group = own[name], groups.get(name, kind)  # a kind may have another default than its group
        default = field.default if field.default_factory is MISSING else field.default_factory()
        marks = (*marks_of(hints_of(kind)[name]), *marks_of(hints_of(group)[name]))
        title = "" if group is kind else (group.__doc__ or "").strip()
        found[name] = Option(name, hints_of(kind)[name], marks, default, helps.get(name, ""), title)
    return found


def _helps(kind: type) -> dict[str, str]:
    """The string under each field, of a class and of those that it derives from."""
    found: dict[str, str] = {}
    # a class overrides the texts of its groups
    for base in reversed([one for one in kind.__mro__ if issubclass(one, Options) and one is not Options]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for line, below in pairwise(body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                text = below.value.value if isinstance(below.value, ast.Constant) else ""
                found[line.target.id] = " ".join(str(text).split())
    return found
