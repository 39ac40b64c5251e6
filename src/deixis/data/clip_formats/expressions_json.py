"""`meta_expressions.json`, which MeViS, ReVOS and Ref-YouTube-VOS share: videos, their frames, what is said of them.

{"videos": {"v1": {"frames": ["00000", …], "expressions": {"0": {"exp": "bird flying", "obj_id": [1], …}}}}}

MeViS (Ding et al., arXiv 2308.08544) and ReVOS (Yan et al., arXiv 2407.11325) have their masks in `mask_dict.json`:

{"7": [RLE or null, one per frame]}      by annotation id; several ids of an expression are one target
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deixis.data.clip_formats.lazy import LazyClips, field, first_folder, frames_named, mask_or_none
from deixis.data.formats.annotation_files import holds_text, parse_object, read_text, the_file
from deixis.data.formats.coco.values import whole_number
from deixis.data.formats.record import Format
from deixis.data.pixels.frames import ImageFrames
from deixis.data.reading import shown
from deixis.errors import DataError
from deixis.video_records import Clip, ClipExpression, Masklet

PICTURES, MASKS = "JPEGImages", "Annotations"


@dataclass(frozen=True)
class Said:
    """One expression: its sentence and, where they are known, the ids of what it means."""

    number: int
    text: str
    ids: tuple[int, ...] | None


def find_expressions(path: Path) -> list[Path]:
    """The files of expressions in a folder; or a JSON file itself."""
    if path.is_dir():
        return sorted(path.glob("meta_expressions*.json"))
    return [path] if path.suffix == ".json" else []


def lists_expressions(file: Path) -> bool:
    """Whether a file has the keys of these files."""
    return holds_text(file, '"videos"') and holds_text(file, '"expressions"')


def expressions_file(path: Path) -> Path:
    """The only file of expressions of a folder; a file as it is.

    Raises:
        DataError: there is none, or there are several.
    """
    return the_file(path, find_expressions, "meta_expressions.json")


def read_videos(file: Path) -> tuple[tuple[str, dict[str, Any]], ...]:
    """(name, entry) of every video.

    Raises:
        DataError: the file is damaged or empty.
    """
    videos = field(parse_object(read_text(file), str(file)), "videos", dict, str(file))
    if not videos:
        raise DataError(f"{file}: holds no video")
    return tuple(videos.items())


def video_frames(file: Path, root: Path | None, video: str, entry: Any) -> ImageFrames:
    """The frames of a video: in `JPEGImages/<video>` or `<video>` of a folder, by default one around the file.

    Raises:
        DataError: no such folder, or no list of frames.
    """
    names = frame_names(file, video, entry)
    places = [place / inner / video for place in roots(file, root) for inner in (PICTURES, "")]
    return frames_named(first_folder(places, f"the frames of video {video}", str(file)), names)


def frame_names(file: Path, video: str, entry: Any) -> list[str]:
    """The names of a video's frames, without suffix.

    Raises:
        DataError: none are listed.
    """
    names: list[Any] = field(entry, "frames", list, f"{file}: video {video}")
    strange = next((name for name in names if not isinstance(name, str) or not name), None)
    if strange is not None:
        raise DataError(f"{file}: video {video}: frames must be file names without suffix, got {shown(strange)}")
    if not names:
        raise DataError(f"{file}: video {video}: lists no frames")
    return names


def roots(file: Path, root: Path | None) -> list[Path]:
    """Where pictures and masks may lie; Ref-YouTube-VOS keeps `meta_expressions/train/…json` apart from `train/`."""
    home = file.resolve().parent
    # `home.parent.parent / home.name`: from meta_expressions/train to train.
    return [root] if root is not None else [home, home.parent.parent / home.name]


def said_of(file: Path, video: str, entry: Any, ids_key: str) -> list[Said]:
    """The expressions of a video.

    Args:
        ids_key: `anno_id` or `obj_id`; one id or a list of them, as numbers or text.

    Raises:
        DataError: a blank sentence, or ids that are no numbers.
    """
    found: list[Said] = []
    for key, value in field(entry, "expressions", dict, f"{file}: video {video}").items():
        where = f"{file}: video {video}, expression {key}"
        text = field(value, "exp", str, where).strip()
        if not text:
            raise DataError(f"{where}: its sentence is blank")
        number = whole_number(key)
        # Keys are numbers as text; others are numbered in order.
        found.append(Said(len(found) if number is None else number, text, _ids(value.get(ids_key), where)))
    return found


def _ids(value: Any, where: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    numbers = [whole_number(one) for one in values]
    if None in numbers:
        raise DataError(f"{where}: ids must be whole numbers, got {shown(value)}")
    # An object that is named twice is one target.
    return tuple(dict.fromkeys(number for number in numbers if number is not None))


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
    # One entry for each frame, null where the object is not visible.
    if not isinstance(rows, list) or len(rows) != count:
        got = "is not there" if rows is None else f"has {len(rows) if isinstance(rows, list) else 'no'} entries"
        raise DataError(f"{where} {got}, the video has {count} frames; get the file again")
    return Masklet(
        tuple(mask_or_none(row, size_hw, f"{where}, frame {frame}") for frame, row in enumerate(rows)), number
    )


MEVIS = Format("mevis", find_mevis, read_mevis, decisive=True)
