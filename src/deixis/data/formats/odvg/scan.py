"""The one pass over a file of ODVG lines that checks them all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from deixis.data.detect.grounding import locate_phrases
from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import (
    clip_instances,
    report_missing,
    require_no_missing,
    vocabulary_of,
    warn_dropped,
)
from deixis.data.formats.find_images import resolve_image
from deixis.data.formats.odvg.line_index import Line, LineReader
from deixis.data.formats.odvg.lines import OdvgLine, parse_line
from deixis.data.pixels.images import image_sizes_hw
from deixis.errors import DataError
from deixis.records import Instances, Spans, Vocabulary

MAX_PHRASES = 50_000
"""Phrases that a data set's vocabulary holds at most, so that it does not grow with the data set."""


class Scan:
    """One pass over a file: every line is checked, nothing but names, counts and faults is kept."""

    def __init__(
        self, file: Path, labels: dict[int, str] | None, places: list[Path], findings: Findings | None
    ) -> None:
        self.file, self.labels, self.places, self.findings = file, labels, places, findings
        self._lines = LineReader(file)
        self._count = self._unplaced = 0
        self._first_unplaced = ""
        self._dropped: list[str] = []
        self._missing: list[tuple[str, str]] = []
        self._categories: dict[int, str] = {}
        self._phrases: dict[str, None] = {}

    @property
    def digest(self) -> str:
        return self._lines.digest

    def __iter__(self) -> Iterator[tuple[Line, tuple[int, int]]]:
        for raw in self._lines:
            size_hw = None
            with collecting(self.findings, "record_malformed", self.file, f"line {raw.number}", "image removed"):
                line = parsed(self.file, raw, self.labels)
                self._note(line)
                size_hw = self._size_hw(line)
            if size_hw is not None:
                yield raw, size_hw

    def _note(self, line: OdvgLine) -> None:
        """Keep a line's names, and what its phrases lack."""
        self._count += 1
        self._categories |= line.categories
        if len(self._phrases) < MAX_PHRASES:
            self._phrases |= dict.fromkeys(line.names or ())
        lack = spans_of(line)[1]
        if lack and self.findings is not None:
            self.findings.add("phrase_unplaced", self.file, line.where.removeprefix(f"{self.file}: "), lack)
        elif lack:
            self._unplaced += 1
            self._first_unplaced = self._first_unplaced or f"{line.where}: {lack}"

    def _size_hw(self, line: OdvgLine) -> tuple[int, int] | None:
        """The size of a line's image; None where the image is missing or unreadable."""
        image = find_image(self.places, line.file_name)
        if image is None:
            self._missing.append((line.file_name, line.where))
            return None
        size_hw = line.size_hw
        with collecting(self.findings, "image_unreadable", image, line.where, "image removed"):
            size_hw = size_hw or image_sizes_hw(image)[0]
        if size_hw is None or self.findings is not None:
            return size_hw
        height, width = size_hw
        boxes = [box for box, _ in line.objects]
        if not all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in boxes):  # few: so it is quick
            self._dropped += [line.where] * clip_instances(Instances.build(boxes, [0] * len(boxes)), size_hw)[1]
        return size_hw

    def finish(self) -> None:
        """Raise or warn of what was met on the way."""
        if not self._count:
            raise DataError(f"{self.file}: has no line that can be used; there is nothing to train on or evaluate")
        if self.findings is not None and len(self._missing) < self._count:
            report_missing(self.findings, self._missing)
        else:
            require_no_missing(str(self.file), [name for name, _ in self._missing], self._count, self.places)
        warn_dropped(str(self.file), self._dropped)
        if self._unplaced:
            warnings.warn(
                f"{self._unplaced} of {self._count} captions cannot be prompted as sentences, only by the list "
                f"of their phrases; the first: {self._first_unplaced}",
                stacklevel=4,
            )

    def vocabularies(self) -> tuple[Vocabulary | None, Vocabulary]:
        """(of the detection lines, of the whole data set)."""
        names = list(dict(sorted((self._categories if self.labels is None else self.labels).items())).values())
        shared = vocabulary_of(names, str(self.file)) if names else None
        if not names and not self._phrases:
            raise DataError(f"{self.file}: no line names a class or a phrase; there is nothing to learn from")
        known = set(names)
        new = [name for name in self._phrases if name not in known]
        return shared, (shared if shared is not None and not new else vocabulary_of([*names, *new], str(self.file)))


def parsed(file: Path, line: Line, labels: dict[int, str] | None) -> OdvgLine:
    """The content of a line; see `parse_line`."""
    return parse_line(line.text, f"{file}: line {line.number}", labels)


def spans_of(line: OdvgLine) -> tuple[tuple[Spans, ...], str]:
    """Where the phrases of a line are in its caption; or nothing, and why not."""
    if not line.caption or not line.names:
        return (), ""
    try:
        return locate_phrases(line.caption, line.names, line.given_spans), ""
    except DataError as error:
        return (), str(error)


def find_image(places: list[Path], file_name: str) -> Path | None:
    """The first place's image of that name."""
    return next(filter(None, (resolve_image(place, file_name) for place in places)), None)
