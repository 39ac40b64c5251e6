"""METEOR of captions by an implementation that others use too, never by one of ours.

With Java and the package pycocoevalcap (`pip install 'deixis[captions]'`): "METEOR", version 1.5 as the COCO caption
evaluation runs it. Without them, but with NLTK and its WordNet data: "NLTK METEOR", which is not comparable with
version 1.5 (no paraphrases, other weights). Without either nothing is measured, and the reason is given. Nothing is
downloaded.
"""

from __future__ import annotations

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

ANSWER_SECONDS = 120.0  # reading its paraphrases takes version 1.5 about 10 s, a caption a millisecond
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
        name: of the figure: "METEOR" or "NLTK METEOR"; empty where it was not measured.
        values: one per group, in [0, 1].
        reason: why it was not measured.
    """

    name: str
    values: tuple[float, ...]
    reason: str = ""


class JavaError(Exception):
    """The Java process ended, took too long, or answered something else than numbers."""


def corpus_meteor(
    captions: Sequence[str], references: Sequence[Sequence[str]], groups: Sequence[Sequence[int]]
) -> Meteor:
    """METEOR of each group of captions; each caption counts with the reference that it fits best.

    Args:
        references: one or more for each caption.
        groups: for each group the places of its captions; none is empty.
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
    scores = [float(scorer(wanted, said)) if said else 0.0 for said, wanted in pairs]
    return Meteor("NLTK METEOR", tuple(sum(scores[i] for i in group) / len(group) for group in groups))


def _meteor_jar() -> Path | None:
    """The jar that pycocoevalcap brings, where Java can run it."""
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations or shutil.which("java") is None:
        return None
    jars = [Path(folder) / "meteor" / "meteor-1.5.jar" for folder in package.submodule_search_locations]
    return next((jar for jar in jars if jar.is_file()), None)


def _by_java(jar: Path, pairs: Sequence[Pair], groups: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Statistics of every pair, then the figure of each group from the statistics of its pairs together.

    Words have neither white space nor "|" in them, so that a pair is one line of the protocol.
    """
    with _Java(jar) as java:
        statistics = [
            java.ask("SCORE ||| " + " ||| ".join(" ".join(words) for words in (*wanted, said)))[0]
            for said, wanted in pairs
        ]
        values = []
        for group in groups:
            answers = java.ask("EVAL ||| " + " ||| ".join(statistics[i] for i in group), len(group) + 1)
            values.append(float(answers[-1]))  # the others are those of single captions
    return tuple(values)


class _Java:
    """METEOR 1.5 waiting for lines; ended with the block, whatever happens in it."""

    def __init__(self, jar: Path) -> None:
        self.command = ["java", HEAP, "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
        self.late = False

    def __enter__(self) -> _Java:
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        with contextlib.suppress(OSError):  # closes the pipes; what was not flushed has no reader any more
            self.process.__exit__(None, None, None)
        self.process.wait()

    def ask(self, line: str, answers: int = 1) -> list[str]:
        """The lines that a line is answered with, each made of numbers.

        It is read whole before it is answered, so neither side waits for the other with a full pipe.
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
            raise JavaError(f"no answer in {ANSWER_SECONDS:.0f} s" if self.late else "it ended early")
        for answer in found:
            if not _NUMBERS.fullmatch(answer):
                raise JavaError(f"it answered {answer[:80]!r}")
        return found

    def _stop(self) -> None:
        self.late = True
        self.process.kill()


def _nltk_scorer() -> Any:
    """NLTK's function of (references, caption), both as words; None where it or its data is missing."""
    try:
        from nltk.corpus import wordnet
        from nltk.translate.meteor_score import meteor_score

        wordnet.ensure_loaded()
    except (ImportError, LookupError, OSError):
        return None
    return meteor_score
