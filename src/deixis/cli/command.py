"""A command as a record, and how any command runs: its options are read and checked here, and nowhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from deixis.cli.arguments import parse
from deixis.options.types import Options


@dataclass(frozen=True)
class Repeats:
    """What a training command also needs: `--gpus` starts it in several processes, `--seeds` several times.

    Attributes:
        check_inputs: "module:function" that finds wrong inputs once, before several processes find them.
        metrics: names of the figures of which repeated runs report mean and spread.
        keep: "module:function" that makes one model of repeated runs; empty where each stays as it is.
    """

    check_inputs: str
    metrics: tuple[str, str]
    keep: str = ""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        words: as they are typed after `deixis`.
        options: what it can be given; the docstring opens its `--help`.
        run: "module:function", imported when the command runs; it takes the options. An integer that it returns is the
            exit code.
        help: its line in the list of commands.
        examples: printed by its `--help`.
        bare: the option that a first word without a flag is the value of.
        repeats: of a training command.
    """

    words: str
    options: type[Options]
    run: str
    help: str
    examples: str = ""
    bare: str = ""
    repeats: Repeats | None = None


def run_command(command: Command, words: Sequence[str]) -> int:
    """Run a command with the words that follow its name; its exit code.

    Raises:
        DeixisError: an option is invalid, or the command cannot do its work.
    """
    given = list(words)
    if command.bare and given and not given[0].startswith("-"):
        given = [f"--{command.bare}", *given]
    options: Any = parse(command.options, given, command.words, command.examples)
    options.check()
    run = imported(command.run)
    if command.repeats is None:
        code = run(options)
        return code if type(code) is int else 0
    _train(run, options, command.repeats, [*command.words.split(), *given])
    return 0


def _train(run: Callable[[Any], Any], options: Any, repeats: Repeats, words: Sequence[str]) -> None:
    """Train in this process, in several, or with one seed after another."""
    from deixis.recipes.run.devices import require_gpus
    from deixis.recipes.run.repeat import repeat_run

    # torchrun sets it: this is one of its processes already
    if options.gpus is not None and "LOCAL_RANK" not in os.environ:
        require_gpus(options.gpus)
        if options.gpus > 1:
            imported(repeats.check_inputs)(options)  # one message here, rather than one from each process
            relaunch(options.gpus, words)
    if options.seeds > 1:
        repeat_run(options, run, repeats.metrics, imported(repeats.keep) if repeats.keep else None)
    else:
        run(options)


def relaunch(processes: int, words: Sequence[str]) -> None:
    """Become torchrun, which starts this same command in that many processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [sys.executable, *torchrun, "-m", "deixis", *words])


def imported(place: str) -> Any:
    """The function that "module:function" names."""
    module, name = place.split(":")
    return getattr(import_module(module), name)
