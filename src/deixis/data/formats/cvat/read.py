"""CVAT for images 1.1 and CVAT for video 1.1: one XML file."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from deixis.data.findings import Findings
from deixis.data.formats.annotation_files import require_no_missing, same_split, the_file
from deixis.data.formats.coco.values import image_size
from deixis.data.formats.cvat.shapes import NOT_READ, READ, Shape, object_of, shape_of
from deixis.data.formats.cvat.tracks import Track, TrackedShape, VideoPictures, frame_files, one_size, video_of
from deixis.data.formats.shared.annotated_images import (
    AnnotatedImage,
    FoundImage,
    located_samples,
    one_object,
    samples_of,
)
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.pixels.image_files import is_left_by_macos, kind_of_file
from deixis.data.reading import reads, require_regular
from deixis.data.sets.embedded import EmbeddedDataset
from deixis.errors import DataError, NoSuchSplitError
from deixis.records import SampleList
from deixis.text import listed, tallied

_NAMES_SHOWN = 5
_NO_END = 1 << 40
_FRAME = re.compile(r"frame_(\d{1,12})")
_ONLY_POINTS = {"skeleton", "points", "polyline", "cuboid", "tag"}


@dataclass
class _Content:
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


@reads("CVAT for images or video XML")
def read_cvat(
    path: str | Path,
    images: Path | None = None,
    masks: bool = True,
    split: str | None = None,
    findings: Findings | None = None,
) -> SampleList | EmbeddedDataset:
    """CVAT's XML file, or the folder that holds one.

    Boxes, turned boxes, polygons, ellipses and masks are objects; polylines, points, cuboids, skeletons and tags are
    none and are counted in a warning, as are attributes. In an XML for video, every frame of the task is an image: a
    file `frame_000012`, or a frame of the video beside the XML. Tracks are visible from one key frame to the next
    that is outside, and are drawn between key frames as CVAT does it.

    Args:
        path: the file or folder.
        images: the folder of images, or the video, where they are not beside the XML.
        masks: keep masks.
        split: a subset of a project's export.
        findings: what cannot be used goes here and is left out; see `deixis.data.findings.Findings`.

    Raises:
        DataError: malformed XML, a shape that is none, a missing image, or an image of another size.
    """
    file = the_file(path, find_cvat, "XML file of CVAT")
    content = _parse(file, findings)
    _warn(content)
    frames = _frames_of_images(content) if split is None else []
    if not frames and (content.images or not content.tracks):
        return samples_of(file, _rows(content, split, masks), content.names, images=images, findings=findings)
    if content.tasks > 1:
        raise DataError(f"{file}: holds the videos of {content.tasks} tasks; export each task by itself")
    return _video(content, images, masks, frames)


def _parse(file: Path, findings: Findings | None) -> _Content:
    """The content, element by element, so that a file of many frames is not held whole."""
    content = _Content(file, findings)
    try:
        for node in _closed_elements(file):
            if node.tag == "meta":
                _read_meta(node, content)
            elif node.tag == "image":
                place = f"image {node.get('name') or node.get('id')}"
                shapes = [shape for _, shape in _shapes(node, content, place, "")]
                content.images.append((dict(node.attrib), shapes))
            else:
                place = f"track {node.get('id')}"
                found = [
                    TrackedShape(int(child.get("frame") or 0), child.get("outside") == "1", shape)
                    for child, shape in _shapes(node, content, place, node.get("label") or "")
                ]
                content.tracks.append(Track(tuple(sorted(found, key=lambda shape: shape.frame))))
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
            root.clear()


def _read_meta(meta: ElementTree.Element, content: _Content) -> None:
    labels = [label for label in meta.iter("label") if not (label.findtext("parent") or "").strip()]
    drawn = [label for label in labels if (label.findtext("type") or "any") not in _ONLY_POINTS]
    content.names = list(dict.fromkeys(name for label in drawn if (name := (label.findtext("name") or "").strip())))
    tasks = [*meta.iter("task"), *meta.findall("job")]
    content.tasks = len(tasks)
    for task in tasks[:1]:
        content.first = int(task.findtext("start_frame") or 0)
        stop = task.findtext("stop_frame")
        content.last = int(stop) if stop else None
        filtered = (task.findtext("frame_filter") or "").partition("step=")[2].strip()
        content.step = max(int(filtered), 1) if filtered.isdecimal() else 1
    content.video = (meta.findtext(".//source") or "").strip()


def _shapes(
    node: ElementTree.Element, content: _Content, place: str, label: str
) -> Iterator[tuple[ElementTree.Element, Shape]]:
    """The shapes of an image or a track that are objects; the others are counted."""
    number = 0
    for child in node:
        if child.tag not in (*READ, *NOT_READ):
            continue
        number += 1
        if child.tag in NOT_READ:
            content.left_out[child.tag] += 1
            continue
        content.attributes.update(one.get("name") or "" for one in child.iter("attribute"))
        with one_object(content.findings, content.path, f"{place}: shape {number}"):
            name = (child.get("label") or label).strip()
            if not name:
                raise ValueError("has no label")
            yield child, shape_of(child.tag, name, child.attrib)


def _rows(content: _Content, split: str | None, masks: bool) -> list[AnnotatedImage]:
    rows = []
    subsets = dict.fromkeys(values["subset"] for values, _ in content.images if values.get("subset"))
    wanted = [name for name in subsets if split is not None and same_split(name.lower()) == same_split(split.lower())]
    if split is not None and not wanted:
        raise NoSuchSplitError(f"{content.path}: has no subset {split!r}, only {', '.join(subsets) or 'none at all'}")
    for values, shapes in content.images:
        name, subset = values.get("name") or "", values.get("subset") or ""
        if split is not None and subset not in wanted:
            continue
        if not name:
            raise DataError(f"{content.path}: image {values.get('id')!r} of CVAT for images XML has no name")
        size_hw = image_size(*(float(values[key]) for key in ("height", "width"))) if "width" in values else None
        names = (f"{subset}/{name}", name) if subset else (name,)
        objects = _Objects(content, tuple(shapes), name, masks)
        rows.append(AnnotatedImage(names, objects, f"{content.path.name}: image {name}", size_hw))
    return rows


@dataclass(frozen=True)
class _Objects:
    """The objects of an image, once its size is known."""

    content: _Content
    shapes: tuple[Shape, ...]
    place: str
    masks: bool

    def __call__(self, size_hw: tuple[int, int]) -> list[AnnotatedObject]:
        objects = []
        for number, shape in enumerate(self.shapes, start=1):
            with one_object(self.content.findings, self.content.path, f"{self.place}: shape {number}"):
                objects.append(object_of(shape, size_hw, self.masks))
        return objects


def _frames_of_images(content: _Content) -> list[int]:
    """The frames of a video's task that was exported for images, which have names without a suffix; none of others.

    Their shapes become tracks of one frame.
    """
    names = [_FRAME.fullmatch(values.get("name") or "") for values, _ in content.images]
    numbers = [int(name[1]) for name in names if name is not None]
    if len(numbers) < len(names):
        return []
    for number, (_, shapes) in zip(numbers, content.images, strict=True):
        for shape in shapes:
            seen, gone = TrackedShape(number, False, shape), TrackedShape(number + 1, True, shape)
            content.tracks.append(Track((seen, gone)))
    return sorted(set(numbers))


def _video(
    content: _Content, images: Path | None, masks: bool, listed_frames: Sequence[int]
) -> SampleList | EmbeddedDataset:
    drawn = {shape.frame for track in content.tracks for shape in track.shapes if not shape.outside}
    if not drawn:
        raise DataError(f"{content.path}: is CVAT for video XML without a shape; there is nothing to learn from")
    last = _NO_END if content.last is None else content.last  # without it, to the last picture there is
    frames: Sequence[int] = listed_frames or range(content.first, last + 1, content.step)
    files = frame_files(content.path, images, frames)
    video = None if files else video_of(content.path, images, content.video)
    if video is not None:
        inside = frames[: len(video)]  # frames ascend from 0 or more, so no later one is in the video
        files = {frame: video.path.with_name(f"frame_{frame:06d}.png") for frame in inside if frame < len(video)}
    missing = [f"frame_{frame:06d}" for frame in sorted(drawn - files.keys())]
    searched = [images or content.path.parent]
    require_no_missing(f"{content.path} (CVAT for video)", missing, len(drawn), searched)
    size_hw = one_size(list(files.values())) if video is None else video.size_hw
    found: list[FoundImage] = []
    for frame, file in files.items():
        source = f"{content.path.name}: frame {frame}"
        shapes = [shape for track in content.tracks if (shape := track.at(frame)) is not None]
        objects = _Objects(content, tuple(shapes), f"frame {frame}", masks)
        found.append((AnnotatedImage((file.name,), objects, source, size_hw), file, size_hw))
    samples = located_samples(content.path, found, content.names, findings=content.findings)
    if video is None:
        return samples
    read = VideoPictures(video, tuple(files))
    return EmbeddedDataset(samples.samples, samples.vocabulary, samples.name, read)


def _warn(content: _Content) -> None:
    if content.left_out:
        warnings.warn(f"{content.path}: left out {tallied(content.left_out)}; {', '.join(READ)} are read", stacklevel=4)
    if content.attributes:
        names = listed(sorted(content.attributes), _NAMES_SHOWN)
        count = content.attributes.total()
        warnings.warn(f"{content.path}: {count} attributes of objects are not read: {names}", stacklevel=4)
