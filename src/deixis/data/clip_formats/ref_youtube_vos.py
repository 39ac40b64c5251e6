"""Ref-YouTube-VOS (Seo et al. 2020): expressions by object number, masks as palette PNGs `Annotations/<video>/`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from deixis.data.clip_formats.expressions_json import (
    MASKS,
    expressions_file,
    find_expressions,
    frame_names,
    lists_expressions,
    read_videos,
    roots,
    said_of,
    video_frames,
)
from deixis.data.clip_formats.label_maps import masklets_of_maps
from deixis.data.clip_formats.lazy import LazyClips
from deixis.data.formats.record import Format
from deixis.errors import DataError
from deixis.video_records import Clip, ClipExpression


def find_ref_youtube_vos(path: Path) -> list[Path]:
    """The files of expressions of a folder, whatever they hold; a file itself if it lists videos and expressions."""
    return [file for file in find_expressions(path) if path.is_dir() or lists_expressions(file)]


def read_ref_youtube_vos(path: Path, videos: Path | None = None) -> LazyClips:
    """The file of expressions. Frames without a PNG are not labelled; a video without any (the validation set) has
    expressions and no labels.

    Args:
        videos: the folder that holds `JPEGImages` and `Annotations`, where it is not found around the file.

    Raises:
        DataError: the file is damaged.
    """
    path = expressions_file(path)
    return LazyClips(read_videos(path), partial(_open, path, videos), path.resolve().parent.name, str(path))


def _open(file: Path, root: Path | None, item: tuple[str, Any]) -> Clip:
    video, entry = item
    frames = video_frames(file, root, video, entry)
    where = f"{file}: video {video}"
    said = said_of(file, video, entry, "obj_id")
    folder = next((p for p in (r / MASKS / video for r in roots(file, root)) if p.is_dir()), None)
    if folder is None:
        asked = tuple(ClipExpression((one.text,), (), expression_id=one.number) for one in said)
        return Clip(frames, expressions=asked, video_id=video, source=where)
    maps = {frame: folder / f"{name}.png" for frame, name in enumerate(frame_names(file, video, entry))}
    labelled = tuple(frame for frame, place in maps.items() if place.exists())
    masklets = masklets_of_maps([maps[frame] for frame in labelled], frames.size_hw)
    position = {masklet.masklet_id: i for i, masklet in enumerate(masklets)}
    expressions = []
    for one in said:
        absent = [i for i in one.ids or () if i not in position]
        if absent or one.ids is None:
            what = f"object {absent[0]} is in no PNG of {folder}" if absent else "has no obj_id"
            raise DataError(f"{where}, expression {one.number}: {what}; get the annotation again")
        meant = tuple(position[i] for i in one.ids)
        expressions.append(ClipExpression((one.text,), meant, expression_id=one.number))
    return Clip(frames, labelled, masklets, tuple(expressions), video, where)


REF_YOUTUBE_VOS = Format("ref_youtube_vos", find_ref_youtube_vos, read_ref_youtube_vos, decisive=True)
