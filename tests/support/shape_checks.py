"""The checks that tests put on every deixis function: shapes by jaxtyping, types by beartype."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook, jaxtyped

CHECKED_CALLS = 20  # of each function in each test: checking every call of a training run doubles its time

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is welcome where a float is
_test = 0


def next_test() -> None:
    """Count the calls of every function from nothing again."""
    global _test
    _test += 1


def _first_calls_checked(function: Any = None, *, typechecker: Any) -> Any:
    """jaxtyping's decorator, but for what a test calls more than `CHECKED_CALLS` times."""
    if function is None:
        return functools.partial(_first_calls_checked, typechecker=typechecker)
    checked = functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isfunction(function):
        return limited(function, checked)
    if inspect.isclass(function) and getattr(function.__init__, "__globals__", None) is globals():
        return function  # its __init__ is checked already, and takes more than its signature says
    return checked(function)


def limited(function: Callable[..., Any], check: Callable[..., Any]) -> Callable[..., Any]:
    """The checked function for the first calls in a test, then the function itself.

    It is made when it is called first: most functions of a module are called by few tests.
    """
    checked = None
    test = calls = 0

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked, test, calls
        if test != _test:
            test, calls = _test, 0
        calls += 1
        if calls > CHECKED_CALLS:
            return _unchecked(function, args, kwargs)
        if checked is None:
            checked = check(function)
        return checked(*args, **kwargs)

    return call


def _unchecked(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A frame more, as checked calls have: `stacklevel` of warnings must not lead to modules of deixis."""
    return function(*args, **kwargs)


def install() -> None:
    """Check whatever of deixis is imported from now on."""
    jaxtyping.jaxtyped = _first_calls_checked
    install_import_hook("deixis", "shape_checks.typechecked")
