"""Checks that options share; each raises OptionError naming the flag, what is allowed and what was given."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deixis.data.scenes import PREFIX
from deixis.errors import OptionError
from deixis.models.builtin import BUILTIN
from deixis.options.types import flag_of

RUNS = Path("runs")
"""Where runs go by default."""


def require(fine: bool, name: str, got: Any, expected: str) -> None:
    """Raises OptionError unless `fine`."""
    if not fine:
        raise OptionError(f"{flag_of(name)}: expected {expected}, got {_shown(got)}")


def _shown(value: Any) -> str:
    """A value as it is typed.

    >>> _shown(("a b", Path("c"))), _shown(2), _shown(())
    ("'a b' 'c'", '2', 'nothing')
    """
    values = value if isinstance(value, tuple | list) else (value,)
    return " ".join(repr(str(one) if isinstance(one, Path) else one) for one in values) or "nothing"


def check_name(name: str) -> None:
    """Raises OptionError when a run's name is not the name of one folder; an empty name is none."""
    fine = not name or (bool(name.strip("./ ")) and not any(sign in name for sign in ("/", "\\", "\0")))
    require(fine, "experiment_name", name, "the name of one folder, without '/'")


def wanted_precision(threshold_for: str) -> float | None:
    """The precision that `--threshold-for` asks for; None for the highest F1.

    Raises:
        OptionError: it asks for neither.

    >>> wanted_precision("precision=0.9"), wanted_precision("f1")
    (0.9, None)
    """
    kind, _, value = threshold_for.lower().partition("=")
    if kind == "f1" and not value:
        return None
    try:
        wanted = float(value) if kind == "precision" else -1
    except ValueError:
        wanted = -1
    require(0 < wanted <= 1, "threshold_for", threshold_for, "f1, or precision=SHARE with a share above 0, at most 1")
    return wanted


A_DETECTOR, A_SEGMENTER = "IDEA-Research/grounding-dino-tiny", "ByteDance/Sa2VA-1B"


def are_generated(*sources: Any) -> bool:
    """Whether all data is generated scenes. Sources that were not given do not count; without any, none is."""
    each = [one for source in sources for one in (source if isinstance(source, tuple | list) else (source,))]
    given = [str(one) for one in each if one]
    return bool(given) and all(source.startswith(PREFIX) for source in given)


def choose_model(options: Any, *sources: Any) -> None:
    """For `__post_init__`: the built-in model where none is named and all data is generated."""
    if options.model == "" and are_generated(*sources):
        object.__setattr__(options, "model", BUILTIN)


def require_model(model: str, example: str, flag: str = "--model") -> None:
    """Raises OptionError where no model is named: the built-in ones know nothing of a user's photographs."""
    if not model:
        raise OptionError(
            f"{flag} is required: a released model, as in {flag} {example}, or a folder of your own. "
            f"{flag} {BUILTIN} knows generated shapes only"
        )


def require_quantizable(bits: str, in_shards: bool, frozen: bool) -> None:
    """Raises OptionError where --quantize cannot be used: the language model is in shards, or is not frozen under its
    adapters, or the package is not installed."""
    if in_shards:
        raise OptionError("--quantize and --shard-model exclude each other; leave one of them out")
    if not frozen:
        raise OptionError("--quantize is for a frozen language model: train adapters (--lora) or --freeze language")
    if find_spec("bitsandbytes") is None:
        raise OptionError(f"--quantize {bits} needs bitsandbytes; install it with: pip install 'deixis[quantize]'")
