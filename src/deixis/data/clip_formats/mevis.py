"""MeViS (Ding et al., arXiv 2308.08544) and ReVOS (Yan et al., arXiv 2407.11325): masks in `mask_dict.json`.

{"7": [RLE or null, one per frame]}      by annotation id; several ids of an expression are one target
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from deixis.data.clip_formats.expressions_json import (
    expressions_file,
    find_expressions,
    lists_expressions,
    read_videos,
    said_of,
    video_frames,
)
from deixis.data.clip_formats.lazy import LazyClips, mask_or_none
from deixis.data.formats.annotation_files import holds_text, parse_object, read_text
from deixis.data.formats.record import Format
from deixis.errors import DataError
from deixis.video_records import Clip, ClipExpression, Masklet

MASK_FILE = "mask_dict.json"


def find_mevis(path: Path) -> list[Path]:
    """The files of expressions that name masks by the ids of annotations."""
    files = [file for file in find_expressions(path) if lists_expressions(file)]
    return [file for file in files if (file.parent / MASK_FILE).is_file() or holds_text(file, '"anno_id"')]


def read_mevis(path: Path, videos: Path | None = None) -> LazyClips:
    """The file of expressions, with `mask_dict.json` beside it, which is read whole and kept.

    Without that file (MeViS's `valid`) clips have expressions and no labels.

    Args:
        videos: the folder that holds `JPEGImages`, where it is not beside the file.

    Raises:
        DataError: a file is damaged.
    """
    path = expressions_file(path)
    file = path.parent / MASK_FILE
    masks = parse_object(read_text(file), str(file)) if file.exists() else None
    return LazyClips(read_videos(path), partial(_open, path, videos, masks), path.resolve().parent.name, str(path))


def _open(file: Path, root: Path | None, masks: dict[str, Any] | None, item: tuple[str, Any]) -> Clip:
    video, entry = item
    frames = video_frames(file, root, video, entry)
    where = f"{file}: video {video}"
    said = said_of(file, video, entry, "anno_id")
    if masks is None:
        asked = tuple(ClipExpression((one.text,), (), expression_id=one.number) for one in said)
        return Clip(frames, expressions=asked, video_id=video, source=where)
    ids = list(dict.fromkeys(i for one in said for i in one.ids or ()))
    masklets = tuple(_masklet(file.parent / MASK_FILE, masks, i, video, len(frames), frames.size_hw) for i in ids)
    expressions = tuple(
        ClipExpression((one.text,), tuple(ids.index(i) for i in one.ids or ()), expression_id=one.number)
        for one in said
    )
    return Clip(frames, tuple(range(len(frames))), masklets, expressions, video, where)


def _masklet(
    file: Path, masks: dict[str, Any], number: int, video: str, count: int, size_hw: tuple[int, int]
) -> Masklet:
    where = f"{file}: annotation {number} of video {video}"
    rows = masks.get(str(number))
    if not isinstance(rows, list) or len(rows) != count:
        got = "is not there" if rows is None else f"has {len(rows) if isinstance(rows, list) else 'no'} entries"
        raise DataError(f"{where} {got}, the video has {count} frames; get the file again")
    return Masklet(
        tuple(mask_or_none(row, size_hw, f"{where}, frame {frame}") for frame, row in enumerate(rows)), number
    )


MEVIS = Format("mevis", find_mevis, read_mevis, decisive=True)
