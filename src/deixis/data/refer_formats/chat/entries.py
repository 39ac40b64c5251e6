"""What readers of conversations share: lists of entries, their images, and turns as exchanges."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import holds_text, parse_json, read_text, require_no_missing
from deixis.data.formats.coco.values import image_size
from deixis.data.formats.find_images import resolve_image
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import shown
from deixis.data.refer_formats.entries import opens_with, settle
from deixis.errors import DataError
from deixis.refer_records import Exchange, ReferList, ReferSample

Entry = Mapping[str, Any]

_COCO = ("train2017", "train2014", "val2017", "val2014")
_FOLDERS = (
    *("", "images", *_COCO, *(f"coco/{name}" for name in _COCO)),
    # as Sa2VA and GLaMM lay them out
    *("llava_images", "Activity_Videos", "images/coco2014/train2014", "images/coco2017", "images/grandf/train"),
    *("images/flickr30k/Flickr30K", "GranDf_HA_images/train", "coco_2014/train2014", "coco_2017/train2017"),
    "flikcr_30k/train",
)
_PLACEHOLDER = re.compile(r"\s*<(?:image|video)>\s*")
_ASKS = frozenset({"human", "user"})
_ANSWERS = frozenset({"gpt", "assistant", "model", "bot"})


def json_files(path: Path) -> list[Path]:
    """The JSON files of a folder; a JSON file itself."""
    return sorted(path.glob("*.json")) if path.is_dir() else [path] if path.suffix == ".json" else []


def are_lists_with(path: Path, *keys: str) -> list[Path]:
    """The JSON files of a path that begin as lists and have all of some keys anywhere."""
    return [
        file for file in json_files(path) if opens_with(file, "[") and all(holds_text(file, f'"{key}"') for key in keys)
    ]


def listed_entries(file: Path, bad: list[str]) -> list[tuple[int, Entry]]:
    """(number, entry) of a JSON list, counted from 1; what is no object is a fault.

    Raises:
        DataError: the file is damaged, or no list.
    """
    content = parse_json(read_text(file), str(file))
    if not isinstance(content, list):
        raise DataError(f"{file}: expected a list of entries, got a {type(content).__name__}")
    entries: list[tuple[int, Entry]] = []
    for number, entry in enumerate(content, start=1):
        if isinstance(entry, dict):
            entries.append((number, entry))
        else:
            bad.append(f"entry {number}: expected an object, got {shown(entry)}")
    return entries


def image_name(entry: Entry, *keys: str) -> str:
    """The name of an entry's image file.

    Raises:
        ValueError: it has none.
    """
    name = next((entry[key] for key in keys if entry.get(key)), None)
    if not isinstance(name, str):
        raise ValueError(f"has no {keys[0]!r}, the name of its image file")
    return name


def folders_around(file: Path, images: Path | None) -> list[Path]:
    """Where the images of a file may be: its own folder or the one above, or the named one; COCO's folders in each."""
    homes = [images] if images is not None else [file.resolve().parent, file.resolve().parent.parent]
    return [home / name for home in homes for name in _FOLDERS if (home / name).is_dir()] or homes


def locate(
    source: str, names: Sequence[str], folders: Sequence[Path], some_missing: bool, *, videos: bool = False
) -> list[Path | None]:
    """The file of each name, in any of the folders. COCO's names of 2014 are also tried as those of 2017, and videos
    in `.mkv` as `.mp4`.

    Args:
        some_missing: give None for an image that is not there, as long as any is.
        videos: a folder of frames is one too.

    Raises:
        DataError: images are missing.
    """

    def find(name: str) -> Path | None:
        # COCO_train2014_000000000009.jpg of 2014 is 000000000009.jpg of 2017.
        short = name.rpartition("_")[2] if "COCO_" in name else name
        for spelling in dict.fromkeys((name, short, re.sub(r"\.mkv$", ".mp4", name))):
            for folder in folders:
                if (path := resolve_image(folder, spelling)) is not None:
                    return path
                if videos and (folder / spelling).is_dir():
                    return folder / spelling
        return None

    found = [find(name) for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if not some_missing or len(missing) == len(names):
        require_no_missing(source, missing, len(names), folders)
    return found


def read_entries(
    file: Path,
    images: Path | None,
    faults: list[str] | None,
    *,
    name_of: Callable[[Entry], str],
    sample_of: Callable[[Entry, Path, int, str], ReferSample],
) -> ReferList:
    """A JSON list of entries with an image each.

    Args:
        images: folder of the images; see `folders_around`.
        faults: takes what cannot be used, which is then left out.
        name_of: the name of an entry's image; raises ValueError where it has none.
        sample_of: of an entry, its image, its number from 1 and where it stands; raises ValueError or DataError.

    Raises:
        DataError: malformed JSON, missing images, or entries that cannot be used.
    """
    bad: list[str] = []
    named = []
    for number, entry in listed_entries(file, bad):
        try:
            named.append((number, entry, name_of(entry)))
        except ValueError as error:
            bad.append(f"entry {number}: {error}")
    names = [name for *_, name in named]
    found = locate(str(file), names, folders_around(file, images), faults is not None) if named else []
    samples = []
    for (number, entry, name), image in zip(named, found, strict=True):
        if image is None:
            bad.append(f"entry {number}: file {name} not found")
            continue
        try:
            samples.append(sample_of(entry, image, number, f"{file.name}: entry {number} ({name})"))
        except (ValueError, DataError) as error:
            bad.append(f"entry {number} ({name}): {error}")
    settle(str(file), bad, faults)
    if not samples and faults is None:
        raise DataError(f"{file}: has no entry; there is nothing to train on")
    return ReferList(tuple(samples), name=file.stem)


def size_of(entry: Entry, image: Path) -> tuple[int, int]:
    """(height, width) as annotated, else that of the upright picture.

    Raises:
        ValueError: no image can have the annotated size.
        DataError: the picture cannot be read.
    """
    if entry.get("height") is None or entry.get("width") is None:
        return image_sizes_hw(image)[0]
    return image_size(entry["height"], entry["width"])


def exchanges_of(turns: Any, clean: Callable[[str], str] = str.strip, suffix: str = "") -> tuple[Exchange, ...]:
    """The turns of a conversation, `from` and `value` (or `role` and `content`), as exchanges.

    What comes before the first question, and a question without an answer, is left out; several questions in a row are
    one; a system's turn stands before the first question.

    Args:
        clean: applied to each text.
        suffix: added to each question.

    Raises:
        ValueError: no list of turns, a turn of another form or of an unknown speaker, or no answered question.
    """
    if not isinstance(turns, list):
        raise ValueError(f"conversations must be a list of turns, got {shown(turns)}")
    found: list[Exchange] = []
    asked: list[str] = []
    for number, turn in enumerate(turns, start=1):
        speaker, text = _turn(turn, number)
        if speaker in _ANSWERS:
            question, answer = "\n".join(asked), clean(text)
            if question and answer:
                found.append(Exchange((question + suffix,), answer))
            asked = []
        elif speaker in _ASKS or speaker == "system":
            words = clean(_PLACEHOLDER.sub(" ", text).strip())
            asked += [words] if words else []
        else:
            raise ValueError(f"turn {number} is from {shown(speaker)}; expected human or gpt")
    if not found:
        raise ValueError("has no question with an answer")
    return tuple(found)


def _turn(turn: Any, number: int) -> tuple[str, str]:
    speaker, text = (
        (turn.get("from", turn.get("role")), turn.get("value", turn.get("content")))
        if isinstance(turn, dict)
        else (None, None)
    )
    if not isinstance(speaker, str) or not isinstance(text, str):
        raise ValueError(f"turn {number} must have 'from' and 'value', both text, got {shown(turn)}")
    return speaker.lower(), text
