"""Checks that options share; each raises OptionError naming the flag, what was got and what was wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deixis.errors import OptionError

RUNS = Path("runs")
"""Where runs go when nobody says."""


def require(fine: bool, name: str, got: Any, wanted: str) -> None:
    """Raises OptionError unless `fine`."""
    if not fine:
        raise OptionError(f"--{name.replace('_', '-')}: got {got!r}, wanted {wanted}")


def at_least(options: Any, name: str, least: float) -> None:
    """Raises OptionError when the option of that name is given and smaller."""
    value = getattr(options, name)
    require(value is None or value >= least, name, value, f"{least} or more")


def check_name(name: str) -> None:
    """Raises OptionError when a run's name cannot be that of one folder; an empty one is none."""
    fine = not name or (bool(name.strip("./ ")) and not any(sign in name for sign in ("/", "\\", "\0")))
    require(fine, "experiment_name", name, "the name of one folder, without '/'")
