"""`meta_expressions.json`, which MeViS, ReVOS and Ref-YouTube-VOS share: videos, their frames, what is said of them.

{"videos": {"v1": {"frames": ["00000", …], "expressions": {"0": {"exp": "bird flying", "obj_id": [1], …}}}}}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data.clip_formats.lazy import field, first_folder, frames_named
from deixis.data.formats.annotation_files import holds_text, parse_object, read_text, the_file
from deixis.data.formats.coco.values import whole_number
from deixis.data.pixels.frames import ImageFrames
from deixis.data.reading import shown
from deixis.errors import DataError

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
        found.append(Said(len(found) if number is None else number, text, _ids(value.get(ids_key), where)))
    return found


def _ids(value: Any, where: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    numbers = [whole_number(one) for one in values]
    if None in numbers:
        raise DataError(f"{where}: ids must be whole numbers, got {shown(value)}")
    return tuple(dict.fromkeys(number for number in numbers if number is not None))
