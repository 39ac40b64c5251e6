"""DAVIS (Pont-Tuset et al., arXiv 1704.00675), and Ref-DAVIS (Khoreva et al., arXiv 1803.08006): palette PNGs.

JPEGImages/480p/<video>/00000.jpg    Annotations/480p/<video>/00000.png    ImageSets/2017/val.txt
Davis17_annot1.txt …, also in davis_text_annotations/:    bear 1 "a brown bear"
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from deixis.data.clip_formats.lazy import LazyClips, first_folder, frames_named, masklets_of_maps, whole
from deixis.data.formats.annotation_files import read_text
from deixis.data.formats.record import Format
from deixis.errors import DataError
from deixis.video_records import Clip, ClipExpression

PICTURES = "JPEGImages"
_RESOLUTIONS = ("480p", "Full-Resolution", "1080p", "")
_MASKS = ("Annotations", "Annotations_unsupervised")
_TEXT_LINE = re.compile(r'(\S+)\s+(\d+)\s+"?(.*?)"?\s*')
_TextsOf = dict[tuple[str, int], tuple[str, ...]]


def find_davis(path: Path) -> list[Path]:
    """The folder of frames."""
    return [folder for folder in [path / PICTURES] if folder.is_dir()]


def read_davis(path: Path, videos: Path | None = None, split: str | None = None) -> LazyClips:
    """A folder of DAVIS, or of one's own laid out like it. Objects without text are expressions that await a caption.

    Several sentences about an object are sentences of one expression.

    Args:
        videos: the folder with a folder of frames for each video, where it is not in `JPEGImages`.
        split: a list of `ImageSets`, such as `val`; without, all videos.

    Raises:
        DataError: folders or the list are missing, a line of text is of another form.
    """
    places = [videos] if videos is not None else [path / PICTURES / inner for inner in _RESOLUTIONS]
    pictures = first_folder(places, "the folder of frames", str(path))
    masks = first_folder([path / m / inner for inner in _RESOLUTIONS for m in _MASKS], "the masks", str(path))
    names = sorted(child.name for child in pictures.iterdir() if child.is_dir())
    if split is not None:
        names = _listed(path, split)
    if not names:
        raise DataError(f"{pictures}: holds no folder of a video")
    name = f"{path.resolve().name} {split or ''}".strip()
    return LazyClips(tuple(names), partial(_open, pictures, masks, _texts(path)), name, str(masks))


def _listed(path: Path, split: str) -> list[str]:
    # 2016 has lists of the same names
    lists = sorted(path.glob(f"ImageSets/**/{split}.txt"), key=lambda file: ("2017" not in file.parts, str(file)))
    if not lists:
        raise DataError(f"{path}: no list ImageSets/…/{split}.txt")
    names = [line.strip() for line in read_text(lists[0]).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{lists[0]}: lists no video; get the file again")
    return names


def _texts(path: Path) -> _TextsOf:
    """The sentences about every object of every video, from all files of text."""
    found: dict[tuple[str, int], list[str]] = {}
    # By name: a file that lies in both places counts once, and the one in the folder itself wins.
    files = {file.name: file for place in ("davis_text_annotations", "") for file in (path / place).glob("*.txt")}
    for file in (files[name] for name in sorted(files) if name.startswith("Davis17_annot")):
        for number, line in enumerate(read_text(file).splitlines(), 1):
            if not line.strip():
                continue
            match = _TEXT_LINE.fullmatch(line.strip())
            if match is None or not match[3].strip():
                raise DataError(f'{file}: line {number}: expected `video object "sentence"`, got {line[:60]!r}')
            texts = found.setdefault((match[1], whole(match[2], f"{file}: line {number}")), [])
            if match[3].strip() not in texts:
                texts.append(match[3].strip())
    return {key: tuple(texts) for key, texts in found.items()}


def _open(pictures: Path, masks: Path, texts: _TextsOf, video: str) -> Clip:
    folder = first_folder([pictures / video], f"the frames of video {video}", str(pictures))
    # Files of macOS and of editors begin with a dot.
    names = sorted(file.stem for file in folder.iterdir() if not file.name.startswith("."))
    if not names:
        raise DataError(f"{folder}: no frames in it")
    frames = frames_named(folder, names)
    maps = {frame: masks / video / f"{name}.png" for frame, name in enumerate(names)}
    labelled = tuple(frame for frame, place in maps.items() if place.exists())
    masklets = masklets_of_maps([maps[frame] for frame in labelled], frames.size_hw)
    known = {masklet.masklet_id for masklet in masklets}
    # A clip without PNGs, as in a test set, cannot show that a number is wrong.
    unknown = sorted(number for name, number in texts if name == video and labelled and number not in known)
    if unknown:
        raise DataError(f"{masks / video}: sentences are given for object {unknown[0]}, which is in no PNG")
    expressions = tuple(
        ClipExpression(texts.get((video, m.masklet_id), ()), (i,), expression_id=m.masklet_id)
        for i, m in enumerate(masklets)
    )
    return Clip(frames, labelled, masklets, expressions, video, str(masks / video))


DAVIS = Format("davis", find_davis, read_davis, takes=("split",), decisive=True)
