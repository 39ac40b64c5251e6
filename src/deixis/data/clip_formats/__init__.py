"""Clips of any format to a `ClipDataset`: one file per format, one table, one function to read any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deixis.data.clip_formats.lazy import LazyClips
from deixis.data.clip_formats.table import CLIP_FORMATS
from deixis.data.formats.recognise import are_scenes, opened, unzipped, without_split
from deixis.data.reading import reading
from deixis.data.refer_formats.sa1b import find_sa1b
from deixis.data.scenes import PREFIX
from deixis.data.scenes.clip_scenes import clip_scenes
from deixis.data.scenes.from_text import parse_scenes
from deixis.errors import DataError
from deixis.video_records import ClipDataset


def read_clips(
    path: str | Path,
    videos: Path | None = None,
    format: str | None = None,
    split: str | None = None,
    max_clips: int | None = None,
) -> ClipDataset:
    """Read clips; their format is recognised from the files. Annotations of a clip are read when it is asked for.

    Args:
        path: a file or folder, a split of it, as in `DAVIS#val`, or `scenes:split=clip_train,count=400,seed=1`.
        videos: the folder of videos or frames, where it is not with the annotations.
        format: a key of `CLIP_FORMATS`, or `scenes`, to name the format instead.
        split: for SA-V `manual` or `auto`, for DAVIS a list of `ImageSets`.
        max_clips: read the first N clips only.

    Raises:
        DataError: nothing there, a format that is not recognised, or annotations that cannot be used.
    """
    if max_clips is not None and max_clips < 1:
        raise DataError(f"{path}: the number of clips must be 1 or more, got {max_clips}")
    if are_scenes(path, format, CLIP_FORMATS):
        generated = clip_scenes(*parse_scenes(str(path)))
        return replace(generated, count=min(generated.count, max_clips or generated.count))
    with reading(str(path), "clips"):
        found, place, split = opened(Path(path), format, split, CLIP_FORMATS, "clips")
        clips: LazyClips = found.read(place, videos, **found.arguments(split=split))
        return replace(clips, keys=clips.keys[:max_clips])


def are_clips(path: str | Path, format: str | None = None) -> bool:
    """Whether a path, or the name of a format, is that of clips; what is neither clips nor anything else is not."""
    if str(path).startswith(PREFIX) or format == "scenes":
        # Generated clips have splits of their own, all called so.
        return "split=clip_" in str(path)
    if format is not None:
        return format in CLIP_FORMATS
    with reading(str(path), "clips"):
        place, _ = without_split(Path(path))
        if not place.exists() or find_sa1b(place):  # SA-1B may be too large to be listed
            return False
        place = unzipped(place, CLIP_FORMATS)
        return any(known.find(place) for known in CLIP_FORMATS.values())
