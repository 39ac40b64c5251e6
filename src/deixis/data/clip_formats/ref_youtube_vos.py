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
from deixis.data.clip_formats.lazy import LazyClips, field, mask_or_none, masklets_of_maps
from deixis.data.formats.record import Format
from deixis.data.pixels.frames import ImageFrames
from deixis.data.reading import shown
from deixis.data.refer_formats.plain_pickle import load_plain_pickle
from deixis.errors import DataError
from deixis.video_records import Clip, ClipExpression, Masklet

NAME = "mask_dict.pkl"
Rows = Mapping[str, Sequence[Any]]
"""The masks of each expression of a video, by its key."""


def masks_by_expression(
    file: Path, root: Path | None, videos: Sequence[tuple[str, Any]]
) -> tuple[Path, dict[str, Rows]] | None:
    """(pickle, masks of every expression by video) where there is a pickle for the file of expressions; else None.

    It may be beside the file, or in the folder of all splits. There it is that of another split if it has masks of
    another number of expressions.

    Raises:
        DataError: the pickle is damaged, not plain, or does not fit the file beside it.
    """
    homes = [file.resolve().parent, *roots(file, root), *file.resolve().parents[1:3]]
    pickles = [home / NAME for home in dict.fromkeys(homes) if (home / NAME).is_file()]
    keys = [
        # keys are text: "10" comes before "2"
        (name, key)
        for name, entry in videos
        for key in sorted(field(entry, "expressions", dict, f"{file}: {name}"))
    ]
    for path in pickles:
        content = load_plain_pickle(path)
        if not isinstance(content, dict):
            raise DataError(f"{path}: holds no dictionary of masks; get it again")
        if len(content) != len(keys):
            if path.parent != file.resolve().parent:
                continue
            raise DataError(f"{path}: has masks of {len(content)} expressions, {file.name} has {len(keys)}")
        found: dict[str, dict[str, Sequence[Any]]] = {}
        for number, (name, key) in enumerate(keys):
            rows = content.get(str(number), content.get(number))
            if not isinstance(rows, list):
                raise DataError(f"{path}: expression {number} needs a list of masks, got {shown(rows)}; get it again")
            found.setdefault(name, {})[key] = rows
        return path, dict(found)
    return None


def masklets_of(
    path: Path, video: str, rows: Rows, frames: Sequence[str], size_hw: tuple[int, int]
) -> tuple[Masklet, ...]:
    """One masklet for each expression, in the order of the keys.

    Args:
        frames: the names of the video's frames; masks are given in their sorted order.

    Raises:
        DataError: another number of masks than of frames, or masks of another size.
    """
    # The pickle goes by sorted names; the frames of the file may be in another order.
    order = sorted(range(len(frames)), key=lambda frame: frames[frame])
    masklets = []
    for number, (key, masks) in enumerate(rows.items()):
        where = f"{path}: expression {key} of video {video}"
        if len(masks) != len(frames):
            raise DataError(f"{where} has masks of {len(masks)} frames, the video has {len(frames)}; get it again")
        placed = dict(zip(order, masks, strict=True))
        masklets.append(
            Masklet(
                tuple(mask_or_none(placed[frame], size_hw, f"{where}, frame {frame}") for frame in range(len(frames))),
                number,
            )
        )
    return tuple(masklets)


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
