"""The loop on disk: everything in a file that grows line by line, and what is kept as a data set.

cycle.jsonl     first what the lines were made by, then an image a line
captions.json   the regions found again, as plain JSON (docs/formats.md) that training reads
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.atomic_files import write_atomic
from deixis.errors import DataError
from deixis.inference.outputs.captions import plain_entry, plain_expression
from deixis.inference.refer.cycle import Cycled
from deixis.refer_records import ReferSample

LINES, KEPT = "cycle.jsonl", "captions.json"


class CycleLines:
    """The lines of a run, one appended when an image is done. What an interrupted run left is gone on with.

    Args:
        folder: of the output.
        made_by: what decides the lines: model, data, settings. Lines made otherwise are never mixed with these.
        name: of the file.

    Raises:
        DataError: the folder has lines made by something else, or cannot be written.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any], name: str = LINES) -> None:
        self.path = folder / name
        self.made_by = json.loads(json.dumps(made_by))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._mend()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror}); choose another --output") from error

    def done(self) -> int:
        """How many images are done; they are the first ones."""
        return sum(1 for _ in self.entries())

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an image's line; it is on its way to the disk when this returns.

        Raises:
            DataError: the disk is full, or gone.
        """
        try:
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror}); make room and go on") from error

    def entries(self) -> Iterator[dict[str, Any]]:
        """The images' lines, in order.

        Raises:
            DataError: a line is damaged.
        """
        with self.path.open(encoding="utf-8") as file:
            next(file)
            for number, line in enumerate(file, start=2):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise DataError(f"{self.path}: line {number} is damaged; remove it and those after it") from error

    def _mend(self) -> None:
        """Cut off half a line, check the first one, or write it."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            write_atomic(self.path, json.dumps({"made_by": self.made_by}, ensure_ascii=False) + "\n")
            return
        try:
            theirs = json.loads(whole[: whole.index(b"\n")])["made_by"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path}: is no file of this command; choose another --output") from error
        changed = sorted(key for key in {*theirs, *self.made_by} if theirs.get(key) != self.made_by.get(key))
        if changed:
            key = changed[0]
            raise DataError(
                f"{self.path}: was made with {key} {theirs.get(key)!r}, now it is {self.made_by.get(key)!r}; "
                "choose another --output, or remove the file"
            )
        if len(whole) < len(content):
            with self.path.open("rb+") as file:
                file.truncate(len(whole))


def cycle_entry(sample: ReferSample, image: str, cycled: Sequence[Cycled]) -> dict[str, Any]:
    """An image's line: an entry of the plain JSON, each caption with its IoU."""
    expressions = []
    for number, found in enumerate(cycled, start=1):
        more: dict[str, Any] = {"cycle_iou": round(found.iou, 5)}
        if found.direct_iou is not None:
            more |= {"direct_iou": round(found.direct_iou, 5)}
        if found.texts:
            more |= {"known": list(found.texts)}
        expressions.append(plain_expression(found.caption, number, **more))
    return plain_entry(sample, image, expressions)


def write_kept(folder: Path, lines: CycleLines, threshold: float) -> tuple[int, int]:
    """Write what is found again as a data set, whole or not at all; (captions kept, images that have any).

    Each entry tells what made its captions, each caption how well its region was found.

    Raises:
        DataError: a line is damaged, or the folder cannot be written.
    """
    kept = []
    for entry in lines.entries():
        found = [
            {key: value for key, value in expression.items() if key != "known"} | {"tags": ["cycle"]}
            for expression in entry["expressions"]
            if expression.get("text") and expression["cycle_iou"] >= threshold
        ]
        if found:
            provenance = {**lines.made_by, "threshold": threshold}
            kept.append({**entry, "expressions": found, "provenance": provenance})
    content = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in kept)
    write_atomic(folder / KEPT, f"[\n{content}\n]\n" if kept else "[]\n")
    return sum(len(entry["expressions"]) for entry in kept), len(kept)
