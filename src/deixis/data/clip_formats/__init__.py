"""Clips of any format to a `ClipDataset`: one file a format, one function to call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from deixis.data.clip_formats.davis import PICTURES, read_davis
from deixis.data.clip_formats.expressions_json import find_expressions
from deixis.data.clip_formats.lazy import LazyClips
from deixis.data.clip_formats.mevis import MASK_FILE, read_mevis
from deixis.data.clip_formats.ref_sav import read_ref_sav
from deixis.data.clip_formats.ref_youtube_vos import read_ref_youtube_vos
from deixis.data.clip_formats.sav import FRAMES_FOLDER, read_sav, read_sav_val, sav_files
from deixis.data.formats.annotation_files import holds_text
from deixis.data.reading import reading, require_regular
from deixis.data.refer_formats.sa1b import has_sa1b_files
from deixis.data.scenes.clip_scenes import clip_scenes
from deixis.data.scenes.from_text import PREFIX, parse_scenes
from deixis.errors import DataError
from deixis.video_records import ClipDataset

READERS: dict[str, Callable[[Path, Path | None, str | None], LazyClips]] = {
    "sav": read_sav,
    "sav_val": read_sav_val,
    "ref_sav": read_ref_sav,
    "mevis": read_mevis,
    "ref_youtube_vos": read_ref_youtube_vos,
    "davis": read_davis,
}
CLIP_FORMATS = (*READERS, "scenes")


def read_clips(
    path: str | Path,
    videos: Path | None = None,
    format: str | None = None,
    split: str | None = None,
    max_clips: int | None = None,
) -> ClipDataset:
    """Read clips, telling the format by the files. Annotations of a clip are read when it is asked for.

    Args:
        path: a file or folder, a split of it, as in `DAVIS#val`, or `scenes:split=clip_train,count=400,seed=1`.
        videos: the folder of videos or frames, where it is not with the annotations.
        format: one of `CLIP_FORMATS`, to name the format instead.
        split: for SA-V `manual` or `auto`, for DAVIS a list of `ImageSets`.
        max_clips: at most so many, the first ones.

    Raises:
        DataError: nothing there, a format that is not recognised, or annotations that cannot be used.
    """
    if format is not None and format not in CLIP_FORMATS:
        raise DataError(f"unknown format {format!r}; choose one of {', '.join(CLIP_FORMATS)}")
    if max_clips is not None and max_clips < 1:
        raise DataError(f"{path}: the number of clips must be 1 or more, got {max_clips}")
    if format == "scenes" or str(path).startswith(PREFIX):
        generated = clip_scenes(*parse_scenes(str(path)))
        return replace(generated, count=min(generated.count, max_clips or generated.count))
    with reading(str(path), "clips"):
        return _read_files(Path(path), videos, format, split, max_clips)


def _read_files(
    place: Path, videos: Path | None, format: str | None, split: str | None, max_clips: int | None
) -> ClipDataset:
    if not place.exists() and "#" in place.name:
        name, _, fragment = place.name.rpartition("#")
        place, split = place.with_name(name), split or fragment
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; give the annotations' file or folder, or scenes:…")
    require_regular(place)
    found = format or recognise_clips(place)
    if found in ("mevis", "ref_youtube_vos") and place.is_dir():
        place = _only(find_expressions(place), place)
    clips = READERS[found](place, videos, split)
    return replace(clips, keys=clips.keys[:max_clips])


def are_clips(path: str | Path, format: str | None = None) -> bool:
    """Whether a path, or the name of a format, is that of clips; what is neither clips nor anything else is not."""
    if str(path).startswith(PREFIX) or format == "scenes":
        return "split=clip_" in str(path)
    if format is not None:
        return format in READERS
    with reading(str(path), "clips"):
        return _of_clips(Path(path))


def _of_clips(place: Path) -> bool:
    if not place.exists() and "#" in place.name:
        place = place.with_name(place.name.rpartition("#")[0])
    if not place.exists() or (place.is_dir() and has_sa1b_files(place)):  # SA-1B may be too large to be listed
        return False
    if place.is_dir() and find_expressions(place):
        return True
    try:
        recognise_clips(place)
    except DataError:
        return False
    return True


def recognise_clips(path: Path) -> str:
    """The format of a file or folder, one of `CLIP_FORMATS`.

    Raises:
        DataError: no format fits.
    """
    if path.is_dir():
        files = find_expressions(path)
        if files:
            return recognise_clips(_only(files, path))
        if (path / FRAMES_FOLDER).is_dir():
            return "sav_val"
        if (path / PICTURES).is_dir():
            return "davis"
        if sav_files(path):
            return "sav"
    elif path.suffix == ".json":
        if path.name.startswith("sav_") and holds_text(path, '"masklet"'):
            return "sav"
        if holds_text(path, '"anno_path"'):
            return "ref_sav"
        if holds_text(path, '"videos"') and holds_text(path, '"expressions"'):
            by_annotation = (path.parent / MASK_FILE).is_file() or holds_text(path, '"anno_id"')
            return "mevis" if by_annotation else "ref_youtube_vos"
    known = ", ".join(READERS)
    raise DataError(f"{path}: no clips of a known format ({known}); give their annotations, as docs/clips.md has them")


def _only(files: list[Path], folder: Path) -> Path:
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "no meta_expressions.json"
        raise DataError(f"{folder}: {names} in it; give the file to read")
    return files[0]
