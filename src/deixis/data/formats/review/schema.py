"""The tables of a review: images, objects, classes, and the log of what people did.

An object is `open` until somebody judges it. Its `origin` is where it came from (`label`: the data set, `model`: a
prediction, `drawn`: a person), its `first` what it was then. Every change raises its `version`, and its image's.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from deixis.data.pixels.image_files import IMAGE_SUFFIXES
from deixis.data.reading import require_regular
from deixis.errors import DataError

FILE = "review.db"
SUFFIXES = (".db", ".sqlite", ".sqlite3")
VERSION = "1"
TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE classes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, category_id INTEGER NOT NULL UNIQUE);
CREATE TABLE images (
    id INTEGER PRIMARY KEY, file TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    image_id INTEGER NOT NULL, labelled INTEGER NOT NULL, absent TEXT, not_exhaustive TEXT NOT NULL DEFAULT '[]',
    status TEXT NOT NULL DEFAULT 'open', annotator TEXT NOT NULL DEFAULT '', at TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL DEFAULT 1, worth REAL NOT NULL DEFAULT 0, disagreement REAL NOT NULL DEFAULT 0,
    uncertainty REAL NOT NULL DEFAULT 0, label_error REAL NOT NULL DEFAULT 0, novelty REAL NOT NULL DEFAULT 0,
    why TEXT NOT NULL DEFAULT '');
CREATE TABLE objects (
    id INTEGER PRIMARY KEY, image INTEGER NOT NULL REFERENCES images (id), label TEXT NOT NULL,
    x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL, mask TEXT,
    crowd INTEGER NOT NULL DEFAULT 0, score REAL, origin TEXT NOT NULL, model TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT 'open', annotator TEXT NOT NULL DEFAULT '', at TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL DEFAULT 1, first TEXT NOT NULL, worth REAL NOT NULL DEFAULT 0,
    sampled INTEGER NOT NULL DEFAULT 0);
CREATE INDEX objects_of_image ON objects (image);
CREATE TABLE actions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, annotator TEXT NOT NULL, kind TEXT NOT NULL,
    image INTEGER NOT NULL, changes TEXT NOT NULL, undoes INTEGER REFERENCES actions (id));
"""
_NAMES = ("facts", "classes", "images", "objects", "actions")
_MAX_VALUE = 64 << 20  # bytes of a value: a mask of the largest image


def find_review(path: Path) -> list[Path]:
    """The file itself; of a folder its `review.db`, where nothing but that and images lies in it."""
    if not path.is_dir():
        return [path] if path.suffix.lower() in SUFFIXES and is_review(path) else []
    file = path / FILE
    # SQLite's own files beside it (-wal, -shm) begin with its name.
    others = [one for one in path.iterdir() if one.is_file() and not one.name.startswith(FILE)]
    if any(one.suffix.lower() not in IMAGE_SUFFIXES for one in others):
        return []
    return [file] if is_review(file) else []


def is_review(file: Path) -> bool:
    """Whether a file is a review's, whatever its name."""
    try:
        with closing(opened_to_read(file)):
            return True
    except (DataError, sqlite3.Error, OSError):
        return False


def opened_to_read(file: Path) -> sqlite3.Connection:
    """A connection that only reads; a server may write meanwhile.

    Raises:
        DataError: no review, or one of a later version.
    """
    require_regular(file)
    if not file.is_file():
        raise DataError(f"{file}: no such file; make it with deixis review serve --data labels.json --db {file}")
    with file.open("rb") as head:
        if head.read(16) != b"SQLite format 3\0":
            raise DataError(f"{file}: is no SQLite file, so no review")
    # without a log beside it nobody writes; then it is read even where nothing can be written
    mode = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "immutable=1"
    connection = sqlite3.connect(f"file:{quote(str(file.absolute()))}?{mode}", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
        # A foreign file may hold views and triggers: they must not call functions with side effects.
        connection.execute("PRAGMA trusted_schema = OFF")
        require_review(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection


def require_review(connection: sqlite3.Connection, file: Path) -> None:
    """Raises DataError unless the tables are those of a review of this version; a view in their place could run on."""
    kinds = dict(connection.execute("SELECT name, type FROM sqlite_master").fetchall())
    if any(kinds.get(name) != "table" for name in _NAMES):
        raise DataError(f"{file}: is an SQLite file, but no review of deixis")
    version = connection.execute("SELECT value FROM facts WHERE name = 'version'").fetchone()
    if version is None or version[0] != VERSION:
        found = "none" if version is None else str(version[0])[:20]
        raise DataError(f"{file}: is a review of version {found}, read is {VERSION}; use the deixis that wrote it")
