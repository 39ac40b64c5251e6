"""The command `deixis`: finds a command in the table, runs it, and turns errors into one line and an exit code.

Exit codes: 0 done; 1 done, and `data check` or `refer check` found errors; 2 an error that the user can fix (one line
on stderr); 130 interrupted from the keyboard; 143 asked to stop by SIGTERM (the run has been saved).
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import version
from io import TextIOWrapper
from itertools import takewhile
from threading import current_thread, main_thread
from types import FrameType

from deixis.cli.command import run_command
from deixis.cli.commands import COMMANDS, REMOVED
from deixis.cli.failures import system_failure, was_stopped
from deixis.errors import DeixisError, OptionError, Terminated
from deixis.text import printable

MAX_LINE = 2_000  # characters of an error; a value of a file may be of any length
STOPPED = "deixis: stopped by SIGTERM after saving; --resume resumes a training run"
EXIT_ERROR, EXIT_KEYBOARD, EXIT_TERMINATED = 2, 130, 143

EXAMPLES = """
Examples:
  deixis demo
  deixis demo refer
  deixis detect train --data labels.json --images photos/ --model IDEA-Research/grounding-dino-tiny
  deixis detect predict --model runs/detector/teachers/grounding_dino --images photos/ --names raccoon cat
  deixis detect eval --model builtin --data labels.json --images photos/
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # One line on stderr in place of Python's two, which show a line of our source.
    for stream in (sys.stdout, sys.stderr):  # text that the terminal's encoding lacks is no reason to stop
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, category, *_: _line(f"warning: {message}") + "\n"
    with _noted_interrupts() as interrupts:
        try:
            sys.exit(run(words))
        except DeixisError as error:
            if os.environ.get("RANK", "0") == "0":
                print(_line(f"error: {error}"), file=sys.stderr)
            sys.exit(EXIT_ERROR)
        except KeyboardInterrupt:
            print("deixis: interrupted", file=sys.stderr)
            sys.exit(EXIT_KEYBOARD)
        except Terminated:
            print(STOPPED, file=sys.stderr)
            sys.exit(EXIT_TERMINATED)
        except BrokenPipeError:
            sys.exit(0)
        except Exception as error:
            if interrupts:  # a compiled module that is being imported turns the interrupt into an error of its own
                print("deixis: interrupted", file=sys.stderr)
                sys.exit(EXIT_KEYBOARD)
            if was_stopped(error):
                print(STOPPED, file=sys.stderr)
                sys.exit(EXIT_TERMINATED)
            message = system_failure(error, words)
            if message is None or os.environ.get("DEIXIS_DEBUG") == "1":
                raise
            print(_line(f"error: {message}"), file=sys.stderr)
            sys.exit(EXIT_ERROR)


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Ctrl-C as always inside the block, and a list that is no longer empty once it came."""
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or current_thread() is not main_thread():
        yield seen
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _line(text: str) -> str:
    """One line for stderr, of a length to be read, whatever users' files hold."""
    line = printable(f"deixis: {' '.join(text.split())}")
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]} … {line[-MAX_LINE // 2 :]}"


def run(words: list[str]) -> int:
    """Find and run the command that the words begin with; its exit code."""
    for length in (3, 2, 1):
        if command := COMMANDS.get(" ".join(words[:length])):
            return run_command(command, words[length:])
    if (removed := " ".join(words[:2])) in REMOVED:
        raise OptionError(f"'deixis {removed}' was removed: {REMOVED[removed]}")
    if words in (["--version"], ["-V"]):
        print(f"deixis {version('deixis')}")
        return 0
    group = [] if not words or words[0].startswith("-") else words[:1]
    found = [command for command in COMMANDS.values() if command.words.split()[: len(group)] == group]
    asked = words == group or words[-1] in ("-h", "--help")  # a group alone asks for its commands
    if not asked or not found:
        place = " ".join(["deixis", *(group if found else [])])
        name = list(takewhile(lambda word: not word.startswith("-"), words[1:3]))  # without its options
        wanted = [*words[:1], *name]
        raise OptionError(f"there is no command {' '.join(wanted)!r}; {_meant(wanted)}see '{place} --help'")
    print(f"usage: deixis {' '.join([*group, 'COMMAND'])} [OPTIONS]\n\nCommands (each has its own --help):")
    width = max(len(command.words) for command in found)
    for command in found:
        print(f"  {command.words:<{width}} {command.help}")
    print("" if group else EXAMPLES.rstrip())
    return 0


def _meant(words: list[str]) -> str:
    """The command that was probably meant."""
    near = get_close_matches(" ".join(words), COMMANDS, 1, 0.7)
    return f"did you mean '{near[0]}'? Or " if near else ""


if __name__ == "__main__":
    main()
