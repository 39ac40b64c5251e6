"""Ref-YouTube-VOS (Seo et al. 2020): expressions by object number, masks as palette PNGs `Annotations/<video>/`.

Without them, masks of `mask_dict.pkl` (as Sa2VA and VISA publish it), one list of RLEs per expression: {"0": [RLE or
None, one per frame]}, numbered through all videos in their order, each one's expressions in the order of their keys as
text, its frames sorted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from deixis.data.clip_formats.expressions_json import (
    MASKS,
    Said,
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
from deixis.data.clip_formats.mask_pickle import Rows, masklets_of, masks_by_expression
from deixis.data.formats.record import Format
from deixis.data.pixels.frames import ImageFrames
from deixis.errors import DataError
from deixis.video_records import Clip, ClipExpression


def find_ref_youtube_vos(path: Path) -> list[Path]:
    """The files of expressions of a folder, whatever they hold; a file itself if it lists videos and expressions."""
    return [file for file in find_expressions(path) if path.is_dir() or lists_expressions(file)]


def read_ref_youtube_vos(path: Path, videos: Path | None = None) -> LazyClips:
    """The file of expressions. Frames without a PNG are not labelled; a video without any (the validation set) has
    expressions and no labels. `mask_dict.pkl`, read whole and kept, gives the masks where there are no PNGs at all.

    Args:
        videos: the folder that holds `JPEGImages` and `Annotations`, where it is not found around the file.

    Raises:
        DataError: the file is damaged.
    """
    path = expressions_file(path)
    entries = read_videos(path)
    painted = any((place / MASKS).is_dir() for place in roots(path, videos))
    pickled = None if painted else masks_by_expression(path, videos, entries)
    return LazyClips(entries, partial(_open, path, videos, pickled), path.resolve().parent.name, str(path))


def _open(file: Path, root: Path | None, pickled: tuple[Path, dict[str, Rows]] | None, item: tuple[str, Any]) -> Clip:
    video, entry = item
    frames = video_frames(file, root, video, entry)
    where = f"{file}: video {video}"
    said = said_of(file, video, entry, "obj_id")
    if pickled is not None:
        said_by_key = dict(zip(entry["expressions"], said, strict=True))
        return _of_pickle(*pickled, video, said_by_key, frame_names(file, video, entry), frames)
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


def _of_pickle(
    path: Path, masks: dict[str, Rows], video: str, said: Mapping[str, Said], names: Sequence[str], frames: ImageFrames
) -> Clip:
    """A video with the masks of each of its expressions.

    Args:
        said: by the key of the expression.
    """
    rows = masks[video]
    masklets = masklets_of(path, video, rows, names, frames.size_hw)
    expressions = tuple(
        ClipExpression((said[key].text,), (i,), expression_id=said[key].number) for i, key in enumerate(rows)
    )
    return Clip(frames, tuple(range(len(frames))), masklets, expressions, video, f"{path}: video {video}")


REF_YOUTUBE_VOS = Format("ref_youtube_vos", find_ref_youtube_vos, read_ref_youtube_vos, decisive=True)
