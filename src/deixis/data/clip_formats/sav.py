"""SA-V (Ravi et al., arXiv 2408.00714): masklets without text, at 6 frames a second of videos with 24.

Training set: `sav_000001.mp4` beside `sav_000001_manual.json` and `sav_000001_auto.json`. Validation and test set:
`JPEGImages_24fps/<video>/00000.jpg` and `Annotations_6fps/<video>/<object>/00000.png`, one PNG per object and frame.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from deixis.data.clip_formats.expressions_json import expressions_file, find_expressions
from deixis.data.clip_formats.lazy import (
    LazyClips,
    field,
    first_folder,
    frames_named,
    mask_or_none,
    read_label_map,
    whole,
)
from deixis.data.formats.annotation_files import holds_text, parse_object, read_text
from deixis.data.formats.coco.values import finite_number, whole_number
from deixis.data.formats.record import Format
from deixis.data.pixels.video_file import VideoFrames
from deixis.data.reading import shown
from deixis.errors import DataError
from deixis.geometry.rle import bitmap_rle
from deixis.records import Rle
from deixis.video_records import Clip, ClipExpression, Masklet

STRIDE = 4  # 24 frames a second, 6 labels
KINDS = ("manual", "auto")
FRAMES_FOLDER, MASKS_FOLDER = "JPEGImages_24fps", "Annotations_6fps"
_ANNOTATION = re.compile(r"(sav_\d+)_(manual|auto)\.json")


def find_sav(path: Path) -> list[Path]:
    """The annotation files of a folder, and of the folders in it; or such a file itself."""
    if not path.is_dir():
        named = path.suffix == ".json" and path.name.startswith("sav_")
        return [path] if named and holds_text(path, '"masklet"') else []
    places = [path, *(child for child in sorted(path.iterdir()) if child.is_dir())]
    return sorted(f for place in places for f in place.glob("sav_*.json") if _ANNOTATION.fullmatch(f.name))


def read_sav(path: Path, videos: Path | None = None, split: str | None = None) -> LazyClips:
    """The training set: a folder of videos and annotations, a folder of such folders, or one annotation file.

    Every masklet is an expression without sentences: it awaits a caption.

    Args:
        videos: the folder of MP4 files, where they are not beside the annotations.
        split: `manual` or `auto`; without, a video's manual annotation, or its automatic one where there is no other.

    Raises:
        DataError: no annotation of the kind.
    """
    if split not in (None, *KINDS):
        raise DataError(f"{path}: SA-V has the annotations {' and '.join(KINDS)}, got {split!r}")
    chosen: dict[str, Path] = {}
    for file in [path] if path.is_file() else find_sav(path):
        match = _ANNOTATION.fullmatch(file.name)
        # A manual annotation replaces the automatic one, whichever is listed first.
        if match and split in (None, match[2]) and (match[1] not in chosen or match[2] == "manual"):
            chosen[match[1]] = file
    if not chosen:
        raise DataError(f"{path}: no sav_000001_{split or 'manual'}.json or the like in it; give SA-V's folder")
    keys = tuple(chosen[video] for video in sorted(chosen))
    name = f"{path.resolve().name} {split or ''}".strip()
    return LazyClips(keys, partial(open_annotated, videos=videos), name, str(path))


def open_annotated(file: Path, videos: Path | None = None) -> Clip:
    """A video by its annotation file; every masklet awaits a caption.

    Raises:
        DataError: the annotation or the video cannot be used, or they do not belong together.
    """
    match = _ANNOTATION.fullmatch(file.name)
    name = match[1] if match else file.stem
    frames = VideoFrames((videos or file.parent) / f"{name}.mp4")
    labelled, masklets = sav_masklets(file, frames.size_hw)
    expressions = tuple(ClipExpression((), (i,), expression_id=m.masklet_id) for i, m in enumerate(masklets))
    return Clip(frames, labelled, masklets, expressions, name, str(file))


def sav_masklets(file: Path, size_hw: tuple[int, int]) -> tuple[tuple[int, ...], tuple[Masklet, ...]]:
    """Labelled frames and masklets of an annotation file. Label i is frame 4i; null and masks without a pixel are
    objects that are not visible.

    Args:
        size_hw: (height, width) of the video.

    Raises:
        DataError: the file is damaged, or made on a video of another size.
    """
    content = parse_object(read_text(file), str(file))
    rows = field(content, "masklet", list, str(file))
    stated = (content.get("video_height"), content.get("video_width"))  # the files have them as 848.0
    if all(finite_number(side) is not None for side in stated) and stated != size_hw:
        raise DataError(f"{file}: made on a video of {stated}, the video is {size_hw} (height, width)")
    count = max((len(row) for row in rows if isinstance(row, list)), default=0)
    # Without ids of its own, a masklet's place is its id.
    given = content.get("masklet_id")
    given = given if isinstance(given, list) and len(given) == count else range(count)
    ids = [whole(number, f"{file}: masklet_id") for number in given]
    columns: list[list[Rle | None]] = [[] for _ in range(count)]
    for label, row in enumerate(rows):
        where = f"{file}: frame {STRIDE * label}"
        if row is not None and (not isinstance(row, list) or len(row) != count):
            raise DataError(f"{where}: expected null or a list of {count} masks, got {shown(row)}")
        for column, number, value in zip(columns, ids, row or [None] * count, strict=True):
            column.append(mask_or_none(value, size_hw, f"{where}, masklet {number}"))
    masklets = tuple(Masklet(tuple(column), number) for column, number in zip(columns, ids, strict=True))
    return tuple(range(0, STRIDE * len(rows), STRIDE)), masklets


def find_sav_val(path: Path) -> list[Path]:
    """The folder of frames at 24 per second."""
    return [folder for folder in [path / FRAMES_FOLDER] if folder.is_dir()]


def read_sav_val(path: Path, videos: Path | None = None) -> LazyClips:
    """The validation or test set: the folder with `JPEGImages_24fps` and `Annotations_6fps`.

    Raises:
        DataError: these are not there, or hold no video.
    """
    pictures = first_folder([videos or path / FRAMES_FOLDER], "the folder of frames", str(path))
    masks = first_folder([path / MASKS_FOLDER], "the folder of masks", str(path))
    names = tuple(sorted(child.name for child in masks.iterdir() if child.is_dir()))
    if not names:
        raise DataError(f"{masks}: holds no folder of a video")
    return LazyClips(names, partial(_open_folders, pictures, masks), path.resolve().name, str(masks))


def _open_folders(pictures: Path, masks: Path, video: str) -> Clip:
    folder = first_folder([pictures / video], f"the frames of video {video}", str(masks))
    names = sorted(file.stem for file in folder.iterdir() if file.stem.isdecimal())
    if not names:
        raise DataError(f"{folder}: no frames 00000.jpg … in it")
    frames = frames_named(folder, names)
    objects = sorted(child for child in (masks / video).iterdir() if child.is_dir())
    # Each object has PNGs of its own frames; a clip's labelled frames are those of any object.
    labelled = sorted({whole(file.stem, str(file)) for place in objects for file in place.glob("*.png")})
    masklets = tuple(
        Masklet(tuple(_binary(place, frame, frames.size_hw) for frame in labelled), number)
        for number, place in enumerate(objects)
    )
    expressions = tuple(ClipExpression((), (i,), expression_id=i) for i in range(len(masklets)))
    return Clip(frames, tuple(labelled), masklets, expressions, video, str(masks / video))


def _binary(folder: Path, frame: int, size_hw: tuple[int, int]) -> Rle | None:
    file = folder / f"{frame:05d}.png"
    if not file.exists():
        return None
    mask = read_label_map(file, size_hw) > 0
    return bitmap_rle(mask) if mask.any() else None


SAV = Format("sav", find_sav, read_sav, takes=("split",), decisive=True)
SAV_VAL = Format("sav_val", find_sav_val, read_sav_val, decisive=True)


def find_ref_sav(path: Path) -> list[Path]:
    """The files that name annotations of SA-V."""
    return [file for file in find_expressions(path) if holds_text(file, '"anno_path"')]


def read_ref_sav(path: Path, videos: Path | None = None) -> LazyClips:
    """The JSON file `{video: {"video_path", "anno_path", "objects": {"0": {"formated": text}}}}`.

    Args:
        videos: the folder of SA-V that the paths in the file start from; by default the file's own.

    Raises:
        DataError: the file is damaged or empty.
    """
    path = expressions_file(path)
    content = parse_object(read_text(path), str(path))
    if not content:
        raise DataError(f"{path}: holds no video")
    return LazyClips(tuple(content.items()), partial(_open, path, videos or path.parent), path.stem, str(path))


def _open(file: Path, root: Path, item: tuple[str, Any]) -> Clip:
    video, content = item
    where = f"{file}: video {video}"
    frames = VideoFrames(_placed(root, field(content, "video_path", str, where)))
    annotation = _placed(root, field(content, "anno_path", str, where))
    labelled, masklets = sav_masklets(annotation, frames.size_hw)
    expressions = []
    for key, value in field(content, "objects", dict, where).items():
        number = whole_number(key)
        if number is None or not 0 <= number < len(masklets):
            raise DataError(f"{where}: object {shown(key)} is none of the {len(masklets)} masklets of {annotation}")
        text = field(value, "formated", str, f"{where}, object {key}").strip()  # spelt so in the file
        if not text:
            raise DataError(f"{where}, object {key}: its sentence is blank")
        expressions.append(ClipExpression((text,), (number,), expression_id=number))
    return Clip(frames, labelled, masklets, tuple(expressions), video, where)


def _placed(root: Path, written: str) -> Path:
    """A path as the file has it, or its name alone where it was written for another machine."""
    path = root / written.replace("\\", "/")
    # The file was written on another machine: its folders are not here, the name is.
    return path if path.is_file() else root / path.name


REF_SAV = Format("ref_sav", find_ref_sav, read_ref_sav, decisive=True)
