"""CVAT for images 1.1 and CVAT for video 1.1: one XML file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from deixis.data.findings import Findings
from deixis.data.formats.annotation_files import report_missing, require_no_missing, same_split, the_file
from deixis.data.formats.coco.values import image_size
from deixis.data.formats.cvat.parse import Content, find_cvat, parse_cvat
from deixis.data.formats.cvat.shapes import READ, Shape, number_of, object_of
from deixis.data.formats.cvat.tracks import Track, TrackedShape, VideoPictures, frame_files, one_size, video_of
from deixis.data.formats.shared.annotated_images import (
    AnnotatedImage,
    FoundImage,
    Objects,
    each_object,
    located_samples,
    one_record,
    samples_of,
)
from deixis.data.reading import reads
from deixis.data.sets.embedded import EmbeddedDataset
from deixis.errors import DataError, NoSuchSplitError
from deixis.records import SampleList
from deixis.text import listed, tallied

_NAMES_SHOWN = 5
_NO_END = 1 << 40
_FRAME = re.compile(r"frame_(\d{1,12})")


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
        images: the folder of images, or the video, where they are not beside the XML.
        split: a subset of a project's export.

    Raises:
        DataError: malformed XML, a shape that is none, a missing image, or an image of another size.
    """
    file = the_file(path, find_cvat, "XML file of CVAT")
    content = parse_cvat(file, findings)
    _warn(content)
    frames = _frames_of_images(content) if split is None else []
    if not frames and (content.images or not content.tracks):
        return samples_of(file, _rows(content, split, masks), content.names, images=images, findings=findings)
    if content.tasks > 1:
        raise DataError(f"{file}: holds the videos of {content.tasks} tasks; export each task by itself")
    return _video(content, images, masks, frames)


def _rows(content: Content, split: str | None, masks: bool) -> list[AnnotatedImage]:
    rows = []
    subsets = dict.fromkeys(values["subset"] for values, _ in content.images if values.get("subset"))
    wanted = [name for name in subsets if split is not None and same_split(name.lower()) == same_split(split.lower())]
    if split is not None and not wanted:
        raise NoSuchSplitError(f"{content.path}: has no subset {split!r}, only {', '.join(subsets) or 'none at all'}")
    for values, shapes in content.images:
        name, subset = values.get("name") or "", values.get("subset") or ""
        if split is not None and subset not in wanted:
            continue
        with one_record(content.findings, content.path, f"image {name or values.get('id')}", "image"):
            if not name:
                raise DataError(f"{content.path}: image {values.get('id')!r} of CVAT for images XML has no name")
            size_hw = None
            if values.keys() & {"height", "width"}:
                size_hw = image_size(*(number_of(values.get(key), key) for key in ("height", "width")))
            # A project's export keeps each subset's images in a folder of its own.
            names = (f"{subset}/{name}", name) if subset else (name,)
            objects = _objects(content, shapes, name, masks)
            rows.append(AnnotatedImage(names, objects, f"{content.path.name}: image {name}", size_hw))
    return rows


def _objects(content: Content, shapes: Sequence[Shape], place: str, masks: bool) -> Objects:
    return each_object(
        content.findings,
        content.path,
        f"{place}: shape",
        rows=shapes,
        read=lambda shape, size_hw: [object_of(shape, size_hw, masks)],
    )


def _frames_of_images(content: Content) -> list[int]:
    """The frames of a video's task that was exported for images, which have names without a suffix; none of others.

    Their shapes become tracks of one frame.
    """
    names = [_FRAME.fullmatch(values.get("name") or "") for values, _ in content.images]
    numbers = [int(name[1]) for name in names if name is not None]
    if len(numbers) < len(names):
        return []
    for number, (_, shapes) in zip(numbers, content.images, strict=True):
        for shape in shapes:
            # Visible in its own frame, and gone in the next one.
            seen, gone = TrackedShape(number, False, shape), TrackedShape(number + 1, True, shape)
            content.tracks.append(Track((seen, gone)))
    return sorted(set(numbers))


def _video(
    content: Content, images: Path | None, masks: bool, listed_frames: Sequence[int]
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
        # No files: the names are for reports, the pixels come from the video.
        files = {frame: video.path.with_name(f"frame_{frame:06d}.png") for frame in inside if frame < len(video)}
    missing = [f"frame_{frame:06d}" for frame in sorted(drawn - files.keys())]
    searched = [images or content.path.parent]
    if content.findings is not None and len(missing) < len(drawn):
        report_missing(content.findings, [(name, content.path.name) for name in missing])
    else:
        require_no_missing(f"{content.path} (CVAT for video)", missing, len(drawn), searched)
    size_hw = one_size(list(files.values())) if video is None else video.size_hw
    found: list[FoundImage] = []
    for frame, file in files.items():
        source = f"{content.path.name}: frame {frame}"
        shapes = [shape for track in content.tracks if (shape := track.at(frame)) is not None]
        objects = _objects(content, shapes, f"frame {frame}", masks)
        found.append((AnnotatedImage((file.name,), objects, source, size_hw), file, size_hw))
    samples = located_samples(content.path, found, content.names, findings=content.findings)
    if video is None:
        return samples
    read = VideoPictures(video, tuple(files))
    return EmbeddedDataset(samples.samples, samples.vocabulary, samples.name, read)


def _warn(content: Content) -> None:
    if content.left_out:
        warnings.warn(f"{content.path}: left out {tallied(content.left_out)}; {', '.join(READ)} are read", stacklevel=4)
    if content.attributes:
        names = listed(sorted(content.attributes), _NAMES_SHOWN)
        count = content.attributes.total()
        warnings.warn(f"{content.path}: {count} attributes of objects are not read: {names}", stacklevel=4)
