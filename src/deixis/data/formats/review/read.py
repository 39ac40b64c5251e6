"""The reviewed part of a review as a data set."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import clip_instances, report_missing, require_no_missing, warn_dropped
from deixis.data.formats.coco.values import image_size
from deixis.data.formats.recognise import without_split
from deixis.data.formats.review.schema import FILE, find_review, opened_to_read
from deixis.data.reading import reads
from deixis.data.scenes import PREFIX
from deixis.errors import DataError, NoSuchSplitError
from deixis.geometry.rle import counts_rle
from deixis.records import Instances, Rle, Sample, SampleList, Vocabulary
from deixis.text import one_line

PARTS = ("reviewed", "all", "before")
DONE = """(i.status = 'done' OR (
    i.labelled = 1
    AND EXISTS (SELECT 1 FROM objects o WHERE o.image = i.id AND o.origin != 'drawn'
        AND o.status IN ('accepted', 'rejected'))
    AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.image = i.id AND o.status = 'open')))"""
"""Of an image `i`: finished by a person or, where it came with labels, all of its objects judged. In an image without
labels nobody knows whether the judged objects are all there are until a person finishes it."""
_KEPT = {
    "reviewed": "o.status = 'accepted'",
    "all": "(o.status = 'accepted' OR (o.status = 'open' AND o.origin = 'label'))",
    "before": "o.origin = 'label'",
}


@reads("a review")
def read_review(
    path: str | Path,
    images: Path | None = None,
    split: str | None = None,
    masks: bool = True,
    findings: Findings | None = None,
) -> SampleList:
    """What people accepted.

    Args:
        path: the file of the review, or the folder of a `review.db`.
        images: the folder of the images, where they are no longer where they were.
        split: `reviewed`, the default: the images that are finished or, where they came with labels, whose objects are
            all judged, with what was accepted in them. `all`: also the other images, with those labels that nobody
            rejected; predictions that nobody looked at are left out. `before`: the reviewed images as they were
            labelled.

    Raises:
        DataError: no review, nothing reviewed, missing images, or values that are none.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    part = split or "reviewed"
    if part not in PARTS:
        raise NoSuchSplitError(f"{file}: a review has the parts {', '.join(PARTS)}; got {part!r}")
    with closing(opened_to_read(file)) as review:
        classes = review.execute("SELECT name, category_id FROM classes ORDER BY id").fetchall()
        vocabulary = Vocabulary(tuple(str(row[0]) for row in classes), tuple(int(row[1]) for row in classes))
        rows = review.execute(f"SELECT * FROM images i WHERE {'1' if part == 'all' else DONE} ORDER BY id").fetchall()
        kept = review.execute(f"SELECT * FROM objects o WHERE {_KEPT[part]} ORDER BY id").fetchall()
    if not rows:
        raise DataError(f"{file}: no image is reviewed yet; deixis review serve {file} shows them; {file}#all is all")
    objects: dict[int, list[sqlite3.Row]] = defaultdict(list)
    for row in kept:
        objects[row["image"]].append(row)
    files = _files(file, [str(row["file"]) for row in rows], images, findings)
    samples, dropped = [], list[str]()
    for row, image in zip(rows, files, strict=True):
        if image is None:
            continue
        source = f"{file.name}: image {row['id']}"
        with collecting(findings, "record_malformed", file, source, "image removed"):
            here = objects[row["id"]]
            was = [_first(one) for one in here] if part == "before" else [dict(one) for one in here]
            sample = _sample(row, image, vocabulary, was, masks=masks, source=source)
            fits, lost = clip_instances(sample.instances, sample.size_hw, keep_all=findings is not None)
            samples.append(sample.evolve(instances=fits))
            dropped += [source] * lost
    warn_dropped(str(file), dropped)
    return SampleList(tuple(samples), vocabulary, f"{file.stem} ({part})")


def _files(file: Path, names: Sequence[str], images: Path | None, findings: Findings | None) -> list[Path | None]:
    folder = file.parent if images is None else images
    found = [folder / (name if images is None else Path(name).name) for name in names]
    files = [one if one.is_file() else None for one in found]
    missing = [name for name, one in zip(names, files, strict=True) if one is None]
    if findings is not None and len(missing) < len(names):
        report_missing(findings, [(name, file.name) for name in missing])
    else:
        require_no_missing(str(file), missing, len(names), [folder])
    return files


def _first(row: sqlite3.Row) -> dict[str, Any]:
    """An object as it was before the review."""
    first = json.loads(row["first"])
    corners = dict(zip(("x1", "y1", "x2", "y2"), first["box"], strict=True))
    return {**dict(row), "label": first["label"], "mask": first["mask"], **corners}


def _sample(
    row: sqlite3.Row,
    image: Path,
    vocabulary: Vocabulary,
    objects: Sequence[dict[str, Any]],
    *,
    masks: bool,
    source: str,
) -> Sample:
    try:
        size_hw = image_size(row["height"], row["width"])
        rles = [mask_of(one["mask"], size_hw) for one in objects] if masks else []
        ids = {name: place for place, name in enumerate(vocabulary.names)}
        whole = [rle for rle in rles if rle is not None]
        has_masks = bool(objects) and len(whole) == len(objects)
        instances = Instances.build(
            [[one[name] for name in ("x1", "y1", "x2", "y2")] for one in objects],
            [ids[one["label"]] for one in objects],
            [bool(one["crowd"]) for one in objects],
            areas_px=coco_mask.area(whole) if has_masks else None,
            masks_rle=whole if has_masks else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source}: {one_line(error)}") from error
    present = set(instances.class_ids.tolist())
    # A class that somebody drew is no longer absent.
    absent = None if row["absent"] is None else frozenset(json.loads(row["absent"])) - present
    sample = Sample(image, size_hw, instances, vocabulary, int(row["image_id"]), source)
    return replace(
        sample, absent_class_ids=absent, not_exhaustive_class_ids=frozenset(json.loads(row["not_exhaustive"]))
    )


def mask_of(text: str | None, size_hw: tuple[int, int]) -> Rle | None:
    """A stored mask.

    Raises:
        ValueError: no run lengths, or those of another size.
    """
    if text is None:
        return None
    stored = json.loads(text)
    if tuple(stored["size"]) != size_hw:
        raise ValueError(f"mask of size {stored['size']} in an image of {list(size_hw)} (height, width)")
    return counts_rle(stored["counts"], size_hw)


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
