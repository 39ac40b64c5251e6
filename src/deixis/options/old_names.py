"""Names that options had in earlier versions: files, command lines and Python that use them still work."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from deixis.errors import OptionError
from deixis.options.marks import Also
from deixis.options.types import flag_of, hints_of, marks_of

T = TypeVar("T")


def old_names(kind: type) -> dict[str, str]:
    """The name of today for each name of before."""
    marks = ((name, mark) for name, hint in hints_of(kind).items() for mark in marks_of(hint))
    return {mark.name: name for name, mark in marks if isinstance(mark, Also)}


def current_values(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values under the names of today, without removed options that were never given."""
    removed, renamed = getattr(kind, "REMOVED", {}), old_names(kind)
    kept = {name: value for name, value in values.items() if name not in removed or value != removed[name].default}
    return {renamed.get(name, name): value for name, value in kept.items()}


def require_present(kind: type, names: Mapping[str, Any], where: str = "") -> None:
    """Raises OptionError that says what replaced the first option that was removed."""
    for name, gone in getattr(kind, "REMOVED", {}).items():
        if name in names:
            raise OptionError(f"{where}{flag_of(name)} {gone.fact}; {gone.instead}")


def knows_old_names(kind: type[T]) -> type[T]:
    """A dataclass of options that may be made with old names too: `DetectTrainOptions(data="x.json", workers=0)`."""
    make = kind.__init__

    @functools.wraps(make)
    def make_renamed(self: Any, *values: Any, **named: Any) -> None:
        named = current_values(kind, named)
        require_present(kind, named)
        make(self, *values, **named)

    del make_renamed.__wrapped__  # what checks its arguments would take those of `make`
    kind.__init__ = make_renamed  # type: ignore[method-assign]
    return kind
