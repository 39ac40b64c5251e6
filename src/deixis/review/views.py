"""What the page reads: the queue, an image with its objects, objects for the grid, what others changed."""

from __future__ import annotations

import json
from typing import Any

from deixis.data.formats.review.read import DONE, kind_of_change
from deixis.errors import DataError
from deixis.review.pictures import outline_of
from deixis.review.queue import ORDERS
from deixis.review.store import CORNERS, Row, Store

PER_PAGE = 60
STATUSES = ("open", "accepted", "rejected", "deleted")


def summary(store: Store) -> Row:
    """What is reviewed, and how far."""
    count = store.rows(
        f"SELECT COUNT(*) AS images, SUM({DONE}) AS done, "
        "(SELECT COUNT(*) FROM objects WHERE status = 'open') AS open FROM images i"
    )[0]
    return {
        "names": store.names,
        "data": store.fact("data"),
        "model": store.fact("model"),
        "images": count["images"],
        "done": count["done"] or 0,
        "open": count["open"],
    }


def images(store: Store, order: str = "worth", *, status: str = "", label: str = "") -> list[Row]:
    """Images in the order of the queue: id, file, whether done, why it is worth a look, objects to judge.

    Args:
        status: `open` or `done`; any if empty.
        label: only images with an object of this class.

    Raises:
        DataError: an order that there is none of.
    """
    if order not in ORDERS:
        raise DataError(f"order: expected one of {', '.join(ORDERS)}, got {order[:40]!r}")
    wanted, values = ["1"], list[Any]()
    if status:
        wanted.append(DONE if status == "done" else f"NOT {DONE}")
    if label:
        wanted.append("EXISTS (SELECT 1 FROM objects o WHERE o.image = i.id AND o.label = ? AND o.status != 'deleted')")
        values.append(label)
    by = "i.id" if order == "file" else f"i.{order} DESC, i.id"
    rows = store.rows(
        f"SELECT id, file, why, {DONE} AS done, "
        "(SELECT COUNT(*) FROM objects o WHERE o.image = i.id AND o.status = 'open') AS open "
        f"FROM images i WHERE {' AND '.join(wanted)} ORDER BY {by}",
        values,
    )
    return [{**row, "done": bool(row["done"])} for row in rows]


def image(store: Store, number: int) -> Row:
    """An image and its objects, those that were deleted left out.

    Raises:
        DataError: there is none.
    """
    row = store.row("images", number)
    found = store.rows("SELECT * FROM objects WHERE image = ? AND status != 'deleted' ORDER BY id", (number,))
    kept = ("id", "file", "width", "height", "status", "annotator", "version", "why")
    return {**{name: row[name] for name in kept}, "objects": [_shown(one, row) for one in found]}


def objects(
    store: Store, *, status: str, label: str, scores: tuple[float, float], sampled: bool = False, offset: int = 0
) -> Row:
    """A page of objects, those most worth a look first, and how many there are in all.

    Args:
        scores: lowest and highest; objects without a score pass where the lowest is 0.
        sampled: only those that were drawn for an audit, in random order.
    """
    wanted = ["o.status != 'deleted'", "COALESCE(o.score, 0) BETWEEN ? AND ?"]
    values: list[Any] = list(scores)
    if status in STATUSES:
        wanted.append("o.status = ?")
        values.append(status)
    if label:
        wanted.append("o.label = ?")
        values.append(label)
    if sampled:
        wanted.append("o.sampled > 0")
    where = " AND ".join(wanted)
    total = store.rows(f"SELECT COUNT(*) AS n FROM objects o WHERE {where}", values)[0]["n"]
    by = "o.sampled" if sampled else "o.worth DESC, o.id"
    rows = store.rows(
        f"SELECT o.* FROM objects o WHERE {where} ORDER BY {by} LIMIT ? OFFSET ?", (*values, PER_PAGE, max(offset, 0))
    )
    return {"total": total, "objects": [_shown(one, None) for one in rows]}


def changes(store: Store, since: int) -> Row:
    """The images that actions after one of the log changed, and by whom."""
    latest = store.rows("SELECT COALESCE(MAX(id), 0) AS latest FROM actions")[0]["latest"]
    rows = [] if since < 0 else store.rows("SELECT image, annotator FROM actions WHERE id > ?", (since,))
    return {"latest": latest, "changes": rows}


def _shown(row: Row, of_image: Row | None) -> Row:
    """An object for the page; its mask as outlines where its image is known."""
    kept = ("id", "image", "label", "score", "origin", "status", "annotator", "at", "version")
    first = json.loads(row["first"])
    return {
        **{name: row[name] for name in kept},
        "box": [row[name] for name in CORNERS],
        "change": "" if row["status"] == "open" else kind_of_change(row),
        "was": first["label"],
        "outlines": [] if of_image is None else outline_of(row, of_image),
    }


def effort(store: Store) -> dict[str, int]:
    """How often people did what, what was undone left out: `add` and `move` are boxes drawn by hand."""
    rows = store.rows(
        "SELECT kind, COUNT(*) AS n FROM actions a WHERE undoes IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM actions b WHERE b.undoes = a.id) GROUP BY kind"
    )
    return {row["kind"]: row["n"] for row in rows}
