"""Writing the caption loop: a file that grows by one line per image, and the kept captions as a data set.

cycle.jsonl     first a line with the model and settings, then one line per image
captions.json   the captions that find their regions again, as plain JSON (docs/formats.md) that training reads
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.atomic_files import write_atomic
from deixis.errors import DataError
from deixis.inference.outputs.captions import plain_entry, plain_expression
from deixis.inference.refer.cycle import Cycled
from deixis.refer_records import ReferSample

LINES, KEPT = "cycle.jsonl", "captions.json"
NOT_AN_ENTRY = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading a line raises that was changed, so that it holds other values than those that were written."""


def require_cycled(entry: Mapping[str, Any]) -> None:
    """Raises one of `NOT_AN_ENTRY` for other values than those of `cycle_entry`."""
    require_each(int, entry["id"], entry["width"])
    for found in entry["expressions"]:
        require_each((int, float), found["cycle_iou"], found.get("direct_iou", 0))
        require_each(str, *found.get("text", ()), *found.get("known", ()))
        require_each(str, found["masks"][0]["counts"])


def require_each(kind: type | tuple[type, ...], *values: Any) -> None:
    """Raises TypeError unless all values are of this kind."""
    for value in values:
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is no {kind}")


class CycleLines:
    """The lines of a run, one appended per finished image. An interrupted run resumes after its last line.

    Args:
        folder: the output folder.
        made_by: what determines the lines: model, data, settings. Lines from different values are never mixed.
        name: the file's name.
        replace: remove lines from another model, data or settings.
        require: raises one of `NOT_AN_ENTRY` for a line with values that were not written so.

    Raises:
        DataError: the folder has lines from another model, data or settings, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        made_by: Mapping[str, Any],
        name: str = LINES,
        *,
        replace: bool = False,
        require: Callable[[Mapping[str, Any]], object] = dict,
    ) -> None:
        self.path, self._require = folder / name, require
        self.made_by = json.loads(json.dumps(made_by))  # as it will be read back: tuples are lists
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._repair(replace)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror}); choose another --output") from error

    def done(self) -> int:
        """The number of finished images, which are the first ones."""
        return sum(1 for _ in self.entries())

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append an image's line; it has been passed to the operating system when this returns.

        Raises:
            DataError: the line cannot be written, for example because the disk is full.
        """
        try:
            # Bytes of a file name that are not UTF-8 become \udcXX, which JSON reads back as it was.
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be written ({error.strerror}); free some space and run the command again"
            ) from error

    def entries(self) -> Iterator[dict[str, Any]]:
        """The images' lines, in order.

        Raises:
            DataError: a line is damaged.
        """
        for number, entry in self.numbered():
            try:
                self._require(entry)  # type: ignore[arg-type]  # None is no mapping: a TypeError
            except NOT_AN_ENTRY as error:
                raise DataError(f"{self.path}: line {number} is damaged; remove it and those after it") from error
            yield entry  # type: ignore[misc]

    def numbered(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """The images' lines, in order, with their numbers in the file; None for a damaged one."""
        with self.path.open("rb") as file:
            next(file)
            for number, line in enumerate(file, start=2):
                yield number, _object(line)

    def _repair(self, replace: bool) -> None:
        """Remove an incomplete last line; check the first line, or write it."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]  # without a line that was cut off
        if not whole:
            self._begin()
            return
        theirs = (_object(whole[: whole.index(b"\n")]) or {}).get("made_by")
        if not isinstance(theirs, dict):
            if not replace:
                raise DataError(f"{self.path}: was not written by this command; choose another --output")
            warnings.warn(
                f"{self.path}: its first line, which says what made the others, is damaged; all are made again",
                stacklevel=2,
            )
            self._begin()
            return
        changed = sorted(key for key in {*theirs, *self.made_by} if theirs.get(key) != self.made_by.get(key))
        if changed and replace:
            self._begin()
            return
        if changed:
            key = changed[0]
            raise DataError(
                f"{self.path}: was made with {key} {theirs.get(key)!r}, now it is {self.made_by.get(key)!r}; "
                "choose another --output, or remove the file"
            )
        if len(whole) < len(content):
            with self.path.open("rb+") as file:
                file.truncate(len(whole))

    def _begin(self) -> None:
        write_atomic(self.path, json.dumps({"made_by": self.made_by}, ensure_ascii=False) + "\n")


def _object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None for anything else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def cycle_entry(sample: ReferSample, image: str, cycled: Sequence[Cycled]) -> dict[str, Any]:
    """An image's line: an entry of the plain JSON, with the cycle IoU of each caption."""
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
    """Write the captions with a cycle IoU of at least `threshold` as a data set, completely or not at all.

    Each entry has the model and settings that made its captions, each caption its cycle IoU.

    Returns:
        (captions kept, images with at least one).

    Raises:
        DataError: a line is damaged, or the folder cannot be written.
    """
    kept = []
    for entry in lines.entries():
        found = [
            # `known` has annotated sentences, for metrics; the data set is of captions
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
