"""How much of a review was corrected."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from deixis.data.formats.recognise import without_split
from deixis.data.formats.review.read import DONE
from deixis.data.formats.review.schema import find_review, opened_to_read
from deixis.data.scenes import PREFIX


def correction_line(path: str | Path) -> str:
    """In a line, how many objects of a review people corrected, and how; empty where a path is no review."""
    place = without_split(Path(path))[0]
    found = [] if str(path).startswith(PREFIX) or not place.exists() else find_review(place)
    if not found:
        return ""
    counts = corrections(found[0])
    images, people = counts.pop("images"), counts.pop("reviewers")
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{found[0].name}: {images} images reviewed by {people} people; objects: {kinds}"


def corrections(file: Path) -> dict[str, int]:
    """How many objects of the reviewed images were accepted as they were, renamed, moved, drawn and rejected.

    >>> corrections(Path("review.db"))  # doctest: +SKIP
    {'images': 40, 'reviewers': 2, 'accepted': 31, 'renamed': 4, 'moved': 3, 'drawn': 6, 'rejected': 9}
    """
    with closing(opened_to_read(file)) as review:
        images = int(review.execute(f"SELECT COUNT(*) FROM images i WHERE {DONE}").fetchone()[0])
        rows = review.execute("SELECT * FROM objects WHERE status != 'open'").fetchall()
        people = int(review.execute("SELECT COUNT(DISTINCT annotator) FROM actions").fetchone()[0])
    counts = Counter(kind_of_change(dict(row)) for row in rows)
    kinds = ("accepted", "renamed", "moved", "drawn", "rejected")
    return {"images": images, "reviewers": people, **{kind: counts[kind] for kind in kinds}}


def kind_of_change(row: dict[str, Any]) -> str:
    """What a person did with an object: accepted, renamed, moved, drawn, rejected, or drawn and deleted again."""
    if row["status"] in ("rejected", "deleted"):
        return "undrawn" if row["origin"] == "drawn" else "rejected"
    if row["origin"] == "drawn":
        return "drawn"
    first = json.loads(row["first"])
    if first["label"] != row["label"]:
        return "renamed"
    return "accepted" if first["box"] == [row[name] for name in ("x1", "y1", "x2", "y2")] else "moved"
