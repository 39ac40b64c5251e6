"""The state of a review: one SQLite file, one transaction per action, nothing overwritten unseen.

An action names the version of what its author saw. Where somebody changed it meanwhile, the action is refused with
what is there now. The log of actions holds every row before and after, so that each can be undone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any

from pycocotools import mask as coco_mask

from deixis.data.formats.review.schema import TABLES, VERSION, require_review
from deixis.errors import DataError
from deixis.geometry.rle import plain_rle
from deixis.records import Rle

Row = dict[str, Any]
_WAIT_S = 30.0
CORNERS = ("x1", "y1", "x2", "y2")
LOGGED = {"images": ("status", "annotator", "at"), "objects": ("label", *CORNERS, "mask", "status", "annotator", "at")}
"""The columns that actions change."""


class ConflictError(Exception):
    """Somebody else changed it meanwhile; `current` is what is there now."""

    def __init__(self, current: Row) -> None:
        super().__init__("changed by somebody else")
        self.current = current


class Store:
    """An open review, for any number of threads; other processes may have it open too.

    Raises:
        DataError: the file is no review.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise DataError(f"{file}: no such review; make it with deixis review serve --data labels.json --db {file}")
        self.file, self._lock = file, RLock()
        try:
            self._connection = _connected(file)
            require_review(self._connection, file)
            # Readers see the state before a transaction while it is written, and do not wait for it.
            self._connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.DatabaseError as error:
            raise DataError(f"{file}: cannot be opened as a review ({error})") from error

    def close(self) -> None:
        """Leave the file as one, without a log beside it where nobody else has it open."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows of a query."""
        with self._lock:
            return [dict(row) for row in self._connection.execute(query, values).fetchall()]

    def row(self, table: str, number: int) -> Row:
        """A row by its id.

        Raises:
            DataError: there is none.
        """
        found = self.rows(f"SELECT * FROM {table} WHERE id = ?", (number,))
        if not found:
            raise DataError(f"{table}: no id {number}")
        return found[0]

    def fact(self, name: str) -> str:
        """What was noted when the review was made; empty where nothing was."""
        found = self.rows("SELECT value FROM facts WHERE name = ?", (name,))
        return str(found[0]["value"]) if found else ""

    @property
    def names(self) -> list[str]:
        """The class names."""
        return [str(row["name"]) for row in self.rows("SELECT name FROM classes ORDER BY id")]

    @contextmanager
    def changing(self) -> Iterator[Edit]:
        """A transaction: all of it is kept, on disk when the block ends, or none.

        Raises:
            DataError: the file cannot be written.
        """
        with self._lock:
            try:
                # The write lock at once: what an action reads cannot be changed before it writes.
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                raise DataError(f"{self.file}: cannot be written now ({error}); try again") from error
            try:
                yield Edit(self)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def write(self, query: str, values: Sequence[Any] = ()) -> int:
        """One statement inside `changing`; the id of a new row."""
        return int(self._connection.execute(query, values).lastrowid or 0)


class Edit:
    """An action under way: it changes rows, and becomes one entry of the log."""

    def __init__(self, store: Store) -> None:
        self.store, self.changes = store, list[Row]()
        self.at = datetime.now(UTC).isoformat(timespec="milliseconds")

    def seen(self, table: str, number: int, version: int) -> Row:
        """A row as its author saw it.

        Raises:
            ConflictError: it has another version.
        """
        row = self.store.row(table, number)
        if row["version"] != version:
            raise ConflictError(row)
        return row

    def change(self, table: str, row: Row, annotator: str, values: Mapping[str, Any]) -> None:
        """Change a row; its version rises."""
        values = {"annotator": annotator, "at": self.at, **values}
        self._set(table, row["id"], values)
        self._note(table, row["id"], {name: row[name] for name in LOGGED[table]})

    def add(self, annotator: str, values: Mapping[str, Any]) -> int:
        """A new object, accepted; before it there was none, which is that it is deleted."""
        values = {"annotator": annotator, "at": self.at, "status": "accepted", **values}
        marks = ", ".join("?" * len(values))
        number = self.store.write(f"INSERT INTO objects ({', '.join(values)}) VALUES ({marks})", list(values.values()))
        row = self.store.row("objects", number)
        self._note("objects", number, {**{name: row[name] for name in LOGGED["objects"]}, "status": "deleted"})
        return number

    def log(self, kind: str, annotator: str, image: int, undoes: int | None = None) -> int:
        """Note the action, and that its image has changed."""
        # What happens to an object counts for its image as well: finishing the image then needs the newer version.
        if all(change["table"] != "images" for change in self.changes):
            self.store.write("UPDATE images SET version = version + 1 WHERE id = ?", (image,))
        return self.store.write(
            "INSERT INTO actions (at, annotator, kind, image, changes, undoes) VALUES (?, ?, ?, ?, ?, ?)",
            (self.at, annotator, kind, image, json.dumps(self.changes), undoes),
        )

    def _set(self, table: str, number: int, values: Mapping[str, Any]) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self.store.write(f"UPDATE {table} SET {names}, version = version + 1 WHERE id = ?", (*values.values(), number))

    def _note(self, table: str, number: int, before: Row) -> None:
        row = self.store.row(table, number)
        after = {name: row[name] for name in LOGGED[table]}
        self.changes.append({"table": table, "id": number, "version": row["version"], "before": before, "after": after})


def new_store(file: Path, facts: Mapping[str, str]) -> Store:
    """A review without images, in a new file.

    Raises:
        DataError: there is such a file, or it cannot be written.
    """
    if file.exists():
        raise DataError(f"{file}: exists; give another --db, or open it with deixis review serve {file}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        connection = _connected(file)
    except (sqlite3.Error, OSError) as error:
        raise DataError(f"{file}: cannot be made ({error})") from error
    connection.executescript(f"BEGIN; {TABLES} COMMIT;")
    rows = {**facts, "version": VERSION}.items()
    connection.executemany("INSERT INTO facts VALUES (?, ?)", list(rows))
    connection.close()
    return Store(file)


def insert_object(
    store: Store, image: int, label: str, box: Sequence[float], *, mask: Rle | None = None, **more: Any
) -> None:
    """A new object that nobody judged, inside `changing`; `more` are further columns."""
    text = None
    if mask is not None and coco_mask.area(mask):
        text = json.dumps(plain_rle(mask))
    corners = [float(number) for number in box]
    first = json.dumps({"label": label, "box": corners, "mask": text})
    values = {"image": image, "label": label, **dict(zip(CORNERS, corners, strict=True)), "mask": text, "first": first}
    values |= more
    marks = ", ".join("?" * len(values))
    store.write(f"INSERT INTO objects ({', '.join(values)}) VALUES ({marks})", list(values.values()))


def _connected(file: Path) -> sqlite3.Connection:
    # Transactions are begun by `changing` and not by sqlite3; its lock guards the connection among threads.
    connection = sqlite3.connect(file, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    # A commit waits for the disk, so a power cut loses no decision.
    connection.execute("PRAGMA synchronous = FULL")
    return connection
