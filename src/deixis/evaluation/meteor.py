"""METEOR of captions, always by an established implementation.

With Java and the package pycocoevalcap (`pip install 'deixis[captions]'`): "METEOR", version 1.5 as the COCO caption
evaluation runs it. Without them, but with NLTK and its WordNet data: "NLTK METEOR", which is not comparable with
version 1.5 (no paraphrases, other weights). With neither, METEOR is not measured and the reason is reported. Nothing is
downloaded.
"""

from __future__ import annotations

import atexit
import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deixis.evaluation.caption_scores import words_of_caption

ANSWER_SECONDS = 120.0  # version 1.5 takes about 10 s to load its paraphrases, then a millisecond per caption
HEAP = "-Xmx2G"
MISSING = (
    "METEOR is not measured: it needs Java and pycocoevalcap (pip install 'deixis[captions]'), "
    "or NLTK with its WordNet data"
)
_NUMBERS = re.compile(r"[-+0-9.eE ]+")
Pair = tuple[list[str], list[list[str]]]  # words of a caption, words of each reference


@dataclass(frozen=True)
class Meteor:
    """METEOR of groups of captions.

    Attributes:
        name: "METEOR" or "NLTK METEOR"; empty where it was not measured.
        values: one per group, in [0, 1].
        reason: why it was not measured.
    """

    name: str
    values: tuple[float, ...]
    reason: str = ""


class JavaError(Exception):
    """The Java process ended, took too long, or answered with something other than numbers."""


def corpus_meteor(
    captions: Sequence[str], references: Sequence[Sequence[str]], groups: Sequence[Sequence[int]]
) -> Meteor:
    """METEOR of each group of captions. A caption counts with the reference that it matches best.

    Args:
        references: one or more per caption.
        groups: for each group the indices of its captions; no group is empty.
    """
    pairs = [
        (words_of_caption(caption), [words_of_caption(text) for text in texts])
        for caption, texts in zip(captions, references, strict=True)
    ]
    jar, reason = _meteor_jar(), MISSING
    if jar is not None:
        try:
            return Meteor("METEOR", _by_java(jar, pairs, groups))
        except (JavaError, OSError) as error:
            reason = f"METEOR is not measured: {jar.name} failed ({error})"
    scorer = _nltk_scorer()
    if scorer is None:
        return Meteor("", (), reason)
    scores = [float(scorer(wanted, candidate)) if candidate else 0.0 for candidate, wanted in pairs]
    return Meteor("NLTK METEOR", tuple(sum(scores[i] for i in group) / len(group) for group in groups))


def _meteor_jar() -> Path | None:
    """The jar in pycocoevalcap, if Java is installed to run it."""
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations or shutil.which("java") is None:
        return None
    jars = [Path(folder) / "meteor" / "meteor-1.5.jar" for folder in package.submodule_search_locations]
    return next((jar for jar in jars if jar.is_file()), None)


def _by_java(jar: Path, pairs: Sequence[Pair], groups: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """The statistics of every pair, then the score of each group from the sum of its pairs' statistics.

    Words contain neither white space nor "|", so a pair is one line of the protocol.
    """
    java = _started(str(shutil.which("java")), jar)
    try:
        # The jar's protocol: SCORE with references and a caption answers a line of statistics, EVAL with such lines
        # answers a score for each and then that of all together.
        statistics = [
            java.ask("SCORE ||| " + " ||| ".join(" ".join(words) for words in (*wanted, candidate)))[0]
            for candidate, wanted in pairs
        ]
        values = []
        for group in groups:
            answers = java.ask("EVAL ||| " + " ||| ".join(statistics[i] for i in group), len(group) + 1)
            values.append(float(answers[-1]))  # the others are scores of single captions
    except BaseException:  # half a question may be left in its pipe
        java.close()
        raise
    return tuple(values)


_processes: dict[tuple[str, Path], _Java] = {}


def _started(program: str, jar: Path) -> _Java:
    """The one process of this program and jar. It is kept, since it takes longer to start than to score an epoch."""
    java = _processes.get((program, jar))
    if java is None or java.process.poll() is not None:
        java = _processes[program, jar] = _Java(program, jar)
        atexit.register(java.close)
    return java


class _Java:
    """A METEOR 1.5 process that answers lines until it is closed, or this process ends."""

    def __init__(self, program: str, jar: Path) -> None:
        self.timed_out = False
        self.process = subprocess.Popen(
            # the options of pycocoevalcap
            [program, HEAP, "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        )

    def close(self) -> None:
        self.process.kill()
        with contextlib.suppress(OSError):  # closes the pipes; unflushed data has no reader
            self.process.__exit__(None, None, None)
        self.process.wait()

    def ask(self, line: str, answers: int = 1) -> list[str]:
        """The lines of numbers that answer a line.

        The process reads a whole line before it answers, so a full pipe cannot block both sides.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        stop = threading.Timer(ANSWER_SECONDS, self._stop)
        stop.start()
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            found = [self.process.stdout.readline().strip() for _ in range(answers)]
        except OSError:
            found = [""]
        finally:
            stop.cancel()
        if "" in found:
            self.process.kill()
            raise JavaError(f"no answer in {ANSWER_SECONDS:.0f} s" if self.timed_out else "it ended early")
        for answer in found:
            if not _NUMBERS.fullmatch(answer):
                raise JavaError(f"it answered {answer[:80]!r}")
        return found

    def _stop(self) -> None:
        self.timed_out = True
        self.process.kill()


def _nltk_scorer() -> Any:
    """NLTK's function of (references, caption), both as words; None if it or its data is missing."""
    try:
        from nltk.corpus import wordnet
        from nltk.translate.meteor_score import meteor_score

        wordnet.ensure_loaded()
    except (ImportError, LookupError, OSError):
        return None
    return meteor_score
