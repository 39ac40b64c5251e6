"""Results as parquet, one file per shard: whole or absent, so that a shard is done or is not.

rows/part-000000.parquet    one row per picture: source, row, picture, model, version, error, result (JSON)
errors.parquet              the rows of pictures that could not be read
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.atomic_files import file_aside
from deixis.errors import DataError
from deixis.recipes.engine.items import Item

ROWS, ERRORS = "rows", "errors.parquet"
COLUMNS = {"source": "string", "row": "int64", "picture": "string", "model": "string", "version": "string"}
FACTS = b"deixis"


@dataclass(frozen=True)
class Answer:
    """What a worker found in one picture.

    Attributes:
        content: what the command's own lines hold, as JSON holds it; None if there is an error.
        error: one line, for a picture that could not be read.
        drawn: a picture to be written beside the rows.
        version: of deixis where it was computed.
    """

    content: dict[str, Any] | None
    error: str | None = None
    drawn: bytes | None = None
    version: str = ""


class Parts:
    """The shards of a run that are done.

    Args:
        output: of the command.
        made_by: what determines results; a part that something else made is done again.
        model: for the column of that name.
    """

    def __init__(self, output: Path, made_by: Mapping[str, Any], model: str) -> None:
        self.output, self.made_by, self.model = output, json.dumps(made_by, sort_keys=True), model

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.output / ROWS / f"part-{number:06d}.parquet"

    def has(self, number: int, shard: Sequence[Item]) -> bool:
        """Whether a shard is done: with the same model and settings, on the same files as they are now."""
        from pyarrow import ArrowException
        from pyarrow.parquet import read_schema

        try:
            facts = json.loads((read_schema(self.path(number)).metadata or {})[FACTS])
            return bool(facts["key"] == self._key(shard))
        except (OSError, ArrowException, ValueError, KeyError, TypeError):
            return False

    def write(self, number: int, shard: Sequence[Item], answers: Sequence[Answer]) -> None:
        """Keep a shard's answers.

        Raises:
            DataError: the file cannot be written.
        """
        rows = [
            {
                "source": item.source,
                "row": item.row,
                "picture": item.name,
                "model": self.model,
                "version": answer.version,
                "error": answer.error,
                "result": None if answer.content is None else json.dumps(answer.content, ensure_ascii=False),
            }
            for item, answer in zip(shard, answers, strict=True)
        ]
        facts = {"key": self._key(shard), "made_by": json.loads(self.made_by)}
        self._save(self.path(number), rows, facts)

    def read(self, number: int) -> Iterator[Answer]:
        """The answers of a shard that is done, without drawn pictures.

        Raises:
            DataError: the file is damaged.
        """
        for row in self._rows(number):
            try:
                content = None if row["result"] is None else dict(json.loads(row["result"]))
                answer = Answer(content, row["error"], version=row["version"])
            except (LookupError, TypeError, ValueError, RecursionError) as error:
                raise DataError(f"{self.path(number)}: is damaged; remove it and run the command again") from error
            yield answer

    def finish(self, count: int) -> None:
        """Write errors.parquet, and remove parts of an earlier run that had more shards.

        Raises:
            DataError: the folder cannot be written.
        """
        for path in (self.output / ROWS).glob("part-*.parquet"):
            if not path.stem[5:].isdecimal() or int(path.stem[5:]) >= count:
                # Of an earlier run with more shards: their rows would be read as results.
                path.unlink()
        errors = [row for number in range(count) for row in self._rows(number, errors_only=True)]
        self._save(self.output / ERRORS, errors, {"made_by": json.loads(self.made_by)})

    def _key(self, shard: Sequence[Item]) -> str:
        named = [(item.source, item.row, item.name, list(item.stamp)) for item in shard]
        # File names on Linux may be no UTF-8.
        return hashlib.sha256(json.dumps([self.made_by, named]).encode(errors="backslashreplace")).hexdigest()

    def _rows(self, number: int, errors_only: bool = False) -> list[dict[str, Any]]:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table

        try:
            # Rows without an error hold null, for which no comparison is true.
            wanted = [("error", "!=", "")] if errors_only else None
            rows: list[dict[str, Any]] = read_table(self.path(number), filters=wanted).to_pylist()
        except (OSError, ArrowException) as error:
            raise DataError(f"{self.path(number)}: cannot be read; remove it and run the command again") from error
        return rows

    def _save(self, path: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
        import pyarrow
        from pyarrow.parquet import write_table

        fields = {**COLUMNS, "error": "string", "result": "string"}
        table = pyarrow.table(
            {name: pyarrow.array([_text(row[name]) for row in rows], kind) for name, kind in fields.items()},
            metadata={FACTS: json.dumps(facts)},
        )
        try:
            with file_aside(path) as draft:
                write_table(table, draft)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(
                f"{path}: cannot be written ({reason}); free some space and run the same command again: "
                "finished shards are kept"
            ) from error


def _text(value: Any) -> Any:
    """A value that parquet holds: names of files that are no UTF-8 are escaped."""
    if isinstance(value, str):
        with suppress(UnicodeEncodeError):
            value.encode()
            return value
        return value.encode(errors="backslashreplace").decode()
    return value
