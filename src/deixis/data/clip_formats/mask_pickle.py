"""`mask_dict.pkl` of Ref-YouTube-VOS: the masks of all expressions of a file, numbered through its videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.data.clip_formats.expressions_json import roots
from deixis.data.clip_formats.lazy import field, mask_or_none
from deixis.data.reading import shown
from deixis.data.refer_formats.plain_pickle import load_plain_pickle
from deixis.errors import DataError
from deixis.video_records import Masklet

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
