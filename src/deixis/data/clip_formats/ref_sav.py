"""Ref-SAV (Yuan et al., arXiv 2501.04001): long sentences about masklets of SA-V, in one JSON file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from deixis.data.clip_formats.expressions_json import expressions_file, find_expressions
from deixis.data.clip_formats.lazy import LazyClips, field
from deixis.data.clip_formats.sav import sav_masklets
from deixis.data.formats.annotation_files import holds_text, parse_object, read_text
from deixis.data.formats.coco.values import whole_number
from deixis.data.formats.record import Format
from deixis.data.pixels.video_file import VideoFrames
from deixis.data.reading import shown
from deixis.errors import DataError
from deixis.video_records import Clip, ClipExpression


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
    return path if path.is_file() else root / path.name


REF_SAV = Format("ref_sav", find_ref_sav, read_ref_sav, decisive=True)
