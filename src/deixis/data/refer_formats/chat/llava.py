"""LLaVA's instruction data (Liu et al., arXiv 2304.08485) and video chat in the same form: language, and no masks.

[{"id": "1", "image": "coco/train2017/000000033471.jpg", "conversations": [
    {"from": "human", "value": "<image>\\nWhat is on the table?"}, {"from": "gpt", "value": "A cup."}]},
 {"id": "2", "video": "v_1.mp4", "conversations": […]},  {"id": "3", "conversations": […]}]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import holds_text, parse_json, read_text, the_file
from deixis.data.formats.record import Format
from deixis.data.pixels.frames import open_frames
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reading, reads, shown
from deixis.data.refer_formats.chat.entries import (
    Entry,
    are_lists_with,
    exchanges_of,
    folders_around,
    listed_entries,
    locate,
)
from deixis.data.refer_formats.entries import settle
from deixis.errors import DataError
from deixis.refer_records import NO_IMAGE, ReferSample
from deixis.video_records import Clip

_TURNS = ("conversations", "messages")


@dataclass(frozen=True)
class Chats:
    """Conversations about images, videos, or nothing. Images are looked at, and videos opened, when asked for.

    Attributes:
        rows: (number in the file, image, video, turns) of each conversation.
        name: what reports call it.
        file: where they were read, for messages.
    """

    rows: tuple[tuple[int, Path | None, Path | None, Any], ...]
    name: str
    file: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Any:
        """A `ReferSample`, or of a video a `Clip`, with a conversation and nothing else.

        Raises:
            DataError: its image or video cannot be read.
        """
        number, image, video, turns = self.rows[index]
        chat, source = exchanges_of(turns), f"{self.file}: entry {number}"
        with reading(source, "a conversation"):
            if video is not None:
                return Clip(open_frames(video), video_id=video.stem, source=source, chat=chat)
            if image is not None:
                return ReferSample(image, image_sizes_hw(image)[0], (), number, source, chat)
            return ReferSample(NO_IMAGE, (0, 0), (), number, source, chat)

    def said(self, index: int) -> tuple[str, Any]:
        """The name of the image or video, and the turns as they stand in the file; opens nothing."""
        _, image, video, turns = self.rows[index]
        return (image or video or Path()).name, turns


def find_llava(path: Path) -> list[Path]:
    """JSON lists of conversations without annotations; a file of JSON lines itself."""
    if path.suffix == ".jsonl" and path.is_file():
        return [path] if any(holds_text(path, f'"{key}"') for key in _TURNS) and not _annotated(path) else []
    found = dict.fromkeys(file for key in _TURNS for file in are_lists_with(path, key))
    return [file for file in found if not _annotated(file)]


def _annotated(file: Path) -> bool:
    # Of Osprey, and of our own JSON with masks, which other readers take.
    return holds_text(file, '"annotation"') or holds_text(file, '"expressions"')


@reads("conversations")
def read_llava(path: str | Path, images: Path | None = None, faults: list[str] | None = None) -> Chats:
    """A JSON list of conversations, or JSON lines.

    Args:
        images: the folder that `image` and `video` are relative to; by default the places around the file are tried.

    Raises:
        DataError: malformed JSON, missing files, or conversations that cannot be used.
    """
    file = the_file(path, find_llava, "file of conversations")
    bad: list[str] = []
    usable = []
    for number, entry in _lines(file) if file.suffix == ".jsonl" else listed_entries(file, bad):
        try:
            turns = next((entry[key] for key in _TURNS if key in entry), None)
            exchanges_of(turns)  # raises where they cannot be used; not kept, since the turns are
            usable.append((number, _media(entry, "image"), _media(entry, "video"), turns))
        except ValueError as error:
            bad.append(f"entry {number}: {error}")
    pictures = _located(file, [row[1] for row in usable], images, faults is not None)
    videos = _located(file, [row[2] for row in usable], images, faults is not None, videos=True)
    rows = []
    for (number, image, video, turns), picture, clip in zip(usable, pictures, videos, strict=True):
        if (image and picture is None) or (video and clip is None):
            bad.append(f"entry {number}: file {image or video} not found")
        else:
            rows.append((number, picture, clip, turns))
    settle(str(file), bad, faults)
    if not rows and faults is None:
        raise DataError(f"{file}: has no conversation; there is nothing to train on")
    return Chats(tuple(rows), file.stem, str(file))


def _lines(file: Path) -> list[tuple[int, Entry]]:
    found: list[tuple[int, Entry]] = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            entry = parse_json(line, f"{file}: line {number}")
            if not isinstance(entry, dict):
                raise DataError(f"{file}: line {number}: expected an object, got {shown(entry)}")
            found.append((number, entry))
    return found


def _media(entry: Entry, key: str) -> str | None:
    """The name of an entry's image or video; one in a list of one counts."""
    value = entry.get(key)
    if isinstance(value, list) and len(value) > 1:
        raise ValueError(f"has {len(value)} {key}s; conversations about one {key} are read")
    value = value[0] if isinstance(value, list) and value else value
    if value in (None, "", []):
        return None
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a file name, got {shown(value)}")
    return value


def _located(
    file: Path, names: Sequence[str | None], images: Path | None, some_missing: bool, *, videos: bool = False
) -> list[Path | None]:
    """The file of each name; see `locate`."""
    wanted = [name for name in names if name]
    if not wanted:
        return [None] * len(names)
    found = iter(locate(str(file), wanted, folders_around(file, images), some_missing, videos=videos))
    return [next(found) if name else None for name in names]


LLAVA = Format("llava", find_llava, read_llava, takes=("faults",), decisive=True)
