"""The command `deixis`: finds the command that is meant, and turns errors into one line and an exit code.

Exit codes: 0 done; 1 done, and `data check` found errors in the data; 2 something the user can put right (one line on
stderr); 130 interrupted from the keyboard; 143 asked to stop by SIGTERM (the run has been saved).
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from threading import current_thread, main_thread
from types import FrameType

from deixis.cli.failures import system_failure
from deixis.errors import DeixisError, Terminated
from deixis.text import printable

MAX_LINE = 2_000  # characters of an error; a value of a file may be of any length
EXIT_ERROR, EXIT_KEYBOARD, EXIT_TERMINATED = 2, 130, 143

# Words of a command to the module and function that run it, and one line of help. Nothing is imported before its turn.
COMMANDS: dict[tuple[str, ...], tuple[str, str, str]] = {
    ("demo",): ("deixis.cli.demo", "demo", "fine-tune the built-in detector on new names, offline, in minutes"),
    ("demo", "refer"): ("deixis.cli.demo", "demo_refer", "fine-tune the built-in segmenter on new shapes"),
    ("annotate",): ("deixis.cli.annotate", "annotate", "photographs to boxes, masks and captions, by both models"),
    ("data", "check"): ("deixis.cli.data", "check", "find what is wrong with a data set, and mend it"),
    ("data", "convert"): ("deixis.cli.data", "convert", "turn annotations of one format into another"),
    ("data", "split"): ("deixis.cli.data", "split", "split it: copies stay together, classes are shared out"),
    ("data", "stats"): ("deixis.cli.data", "stats", "count a data set and show it on a page"),
    ("model", "convert"): ("deixis.cli.model", "convert", "read a .pth of IDEA-Research or MMDetection, or write one"),
    ("model", "info"): ("deixis.cli.model", "info", "say what a model is: flavour, sizes, parts, tokenizer"),
    ("model", "merge"): ("deixis.cli.model", "merge", "merge an adapter, or go part of the way to a tuned model"),
    ("model", "export"): ("deixis.cli.model", "export", "write ONNX for fixed names, and check it in onnxruntime"),
    ("detect", "train"): ("deixis.cli.detect", "train", "fine-tune a detector on your own pictures and boxes"),
    ("detect", "eval"): ("deixis.cli.detect", "evaluate", "measure a detector: mAP overall, by size and by class"),
    ("detect", "new"): (
        "deixis.cli.detect",
        "new",
        "write a small random detector, to train from nothing",
    ),
    ("detect", "predict"): ("deixis.cli.detect", "predict", "find named things in pictures"),
    ("refer", "check"): ("deixis.cli.refer_check", "check", "look for what is wrong with phrases and masks"),
    ("refer", "train"): ("deixis.cli.refer", "train", "fine-tune a segmenter: a phrase in, a mask out"),
    ("refer", "eval"): ("deixis.cli.refer", "evaluate", "measure a segmenter: cIoU and gIoU, overall and by group"),
    ("refer", "predict"): ("deixis.cli.refer", "predict", "find what phrases mean in pictures"),
    ("refer", "track"): ("deixis.cli.refer", "track", "follow what phrases mean through a video"),
    ("refer", "caption"): ("deixis.cli.captions", "caption", "describe masks: a mask in, a phrase out"),
    ("refer", "cycle"): ("deixis.cli.captions", "cycle", "caption masks, and keep the captions that find them again"),
    ("refer", "memory"): ("deixis.cli.refer", "memory", "train the memory that follows objects through videos"),
    ("refer", "new"): ("deixis.cli.refer", "new", "write a small random segmenter, to train from nothing"),
}

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
            print("deixis: stopped by SIGTERM after saving; a train command goes on with --resume", file=sys.stderr)
            sys.exit(EXIT_TERMINATED)
        except BrokenPipeError:
            sys.exit(0)
        except Exception as error:
            if interrupts:  # a compiled module that is being imported turns the interrupt into an error of its own
                print("deixis: interrupted", file=sys.stderr)
                sys.exit(EXIT_KEYBOARD)
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
    for length in (2, 1):
        if tuple(words[:length]) in COMMANDS:
            module, function, _ = COMMANDS[tuple(words[:length])]
            return int(getattr(import_module(module), function)(words[length:]))
    if words in (["--version"], ["-V"]):
        from importlib.metadata import version

        print(f"deixis {version('deixis')}")
        return 0
    group = [] if not words or words[0].startswith("-") else words[:1]
    known = [name for name in COMMANDS if list(name[: len(group)]) == group]
    asked = words == group or words[-1] in ("-h", "--help")  # a group alone asks what is in it
    if not asked or not known:
        place = " ".join(["deixis", *(group if known else [])])
        print(f"deixis: error: there is no command {' '.join(words)!r}; try '{place} --help'", file=sys.stderr)
        return EXIT_ERROR
    print(f"usage: deixis {' '.join([*group, 'COMMAND'])} [OPTIONS]\n\nCommands (each has its own --help):")
    for name in known:
        print(f"  {' '.join(name):<16} {COMMANDS[name][2]}")
    print(EXAMPLES.rstrip())
    return 0


if __name__ == "__main__":
    main()
