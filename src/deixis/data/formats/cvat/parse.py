"""CVAT's XML files: which they are, and what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from deixis.data.findings import Findings
from deixis.data.formats.cvat.shapes import NOT_READ, READ, Shape, number_of, shape_of
from deixis.data.formats.cvat.tracks import Track, TrackedShape
from deixis.data.formats.shared.annotated_images import one_record
from deixis.data.pixels.image_files import is_left_by_macos, kind_of_file
from deixis.data.reading import require_regular
from deixis.errors import DataError

# A label may be for shapes of one type only; those of these types have no object that is read.
_ONLY_POINTS = {"skeleton", "points", "polyline", "cuboid", "tag"}


@dataclass
class Content:
    """What a file holds, as read so far."""

    path: Path
    findings: Findings | None
    names: list[str] = field(default_factory=list)
    tasks: int = 0
    first: int = 0
    last: int | None = None
    step: int = 1
    video: str = ""
    images: list[tuple[dict[str, str], list[Shape]]] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    attributes: Counter[str] = field(default_factory=Counter)


def find_cvat(path: Path) -> list[Path]:
    """The XML files of CVAT in a folder or in its `annotations`; or a file itself, if it is one."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".xml" and _is_cvat(path) else []
    for place in (path, path / "annotations"):
        files = [file for file in sorted(place.glob("*.xml"))[:100] if not is_left_by_macos(file)]
        # The first tells: a folder of VOC has thousands of XML files.
        if files and _is_cvat(files[0]):
            return [file for file in files if _is_cvat(file)]
    return []


def _is_cvat(file: Path) -> bool:
    try:
        require_regular(file)
        with file.open("rb") as content:
            root: ElementTree.Element = next(ElementTree.iterparse(content, ["start"]))[1]
            return root.tag == "annotations"
    except (OSError, ValueError, LookupError, StopIteration, ElementTree.ParseError, DataError):
        return False


def parse_cvat(file: Path, findings: Findings | None) -> Content:
    """The content, element by element, so that a file of many frames is not held whole.

    Raises:
        DataError: malformed XML, or without findings a shape that is none.
    """
    content = Content(file, findings)
    try:
        for node in _closed_elements(file):
            if node.tag == "meta":
                _read_meta(node, content)
            elif node.tag == "image":
                place = f"image {node.get('name') or node.get('id')}"
                shapes = [found.shape for found in _shapes(node, content, place, "")]
                content.images.append((dict(node.attrib), shapes))
            else:
                place = f"track {node.get('id')}"
                tracked = _shapes(node, content, place, node.get("label") or "")
                content.tracks.append(Track(tuple(sorted(tracked, key=lambda shape: shape.frame))))
    except (ElementTree.ParseError, LookupError, OSError) as error:
        kind = kind_of_file(file)
        told = f"is {kind}" if kind else f"cannot read as XML ({error}); correct the file, or export it again"
        raise DataError(f"{file}: {told}") from error
    return content


def _closed_elements(file: Path) -> Iterator[ElementTree.Element]:
    """Each `meta`, `image` and `track` when it is complete; it is emptied afterwards."""
    root: ElementTree.Element | None = None
    depth = 0
    for event, node in ElementTree.iterparse(file, ["start", "end"]):
        root = node if root is None else root
        depth += 1 if event == "start" else -1
        if event == "end" and depth == 1 and node.tag in ("meta", "image", "track"):
            yield node
        if event == "end" and depth == 1:
            # Otherwise the root would keep an emptied element for each frame.
            root.clear()


def _read_meta(meta: ElementTree.Element, content: Content) -> None:
    # Those with a parent are points of a skeleton.
    labels = [label for label in meta.iter("label") if not (label.findtext("parent") or "").strip()]
    drawn = [label for label in labels if (label.findtext("type") or "any") not in _ONLY_POINTS]
    content.names = list(dict.fromkeys(name for label in drawn if (name := (label.findtext("name") or "").strip())))
    # A project lists its tasks; the export of a single job has <job> instead.
    tasks = [*meta.iter("task"), *meta.findall("job")]
    content.tasks = len(tasks)
    for task in tasks[:1]:
        content.first = int(task.findtext("start_frame") or 0)
        stop = task.findtext("stop_frame")
        content.last = int(stop) if stop else None
        # CVAT writes "step=5" where it took every fifth frame.
        filtered = (task.findtext("frame_filter") or "").partition("step=")[2].strip()
        content.step = max(int(filtered), 1) if filtered.isdecimal() else 1
    content.video = (meta.findtext(".//source") or "").strip()


def _shapes(node: ElementTree.Element, content: Content, place: str, label: str) -> Iterator[TrackedShape]:
    """The shapes of an image, whose frame is 0, or a track that are objects; the others are counted."""
    number = 0
    for child in node:
        if child.tag not in (*READ, *NOT_READ):
            continue
        number += 1
        if child.tag in NOT_READ:
            content.left_out[child.tag] += 1
            continue
        content.attributes.update(one.get("name") or "" for one in child.iter("attribute"))
        with one_record(content.findings, content.path, f"{place}: shape {number}"):
            name = (child.get("label") or label).strip()
            if not name:
                raise ValueError("has no label")
            frame = int(number_of(child.get("frame") or "0", "frame"))
            if frame < 0:
                raise ValueError(f"is in frame {frame}; frames count from 0")
            yield TrackedShape(frame, child.get("outside") == "1", shape_of(child.tag, name, child.attrib))
