"""Builders for the readers of clips, and for video files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import clip_miniatures as mini

from deixis.data.clip_formats import read_clips
from deixis.data.pixels.frames import open_frames

_Read = Callable[[], object]


def read_whole(path: Path, format: str | None, split: str | None = None) -> None:
    """Clips with all labelled frames, as training and tracking read them."""
    clips = read_clips(path, format=format, split=split)
    for index in range(len(clips)):
        clip = clips[index]
        for label in range(len(clip.labelled)):
            clip.sample_at(label)
        for _ in clip.frames:
            pass


def _reader(place: Path, format: str, random: Random) -> _Read:
    return partial(read_whole, place, format if random.random() < 0.6 else None)


def _sav(folder: Path, random: Random) -> _Read:
    file = mini.sav(folder / "set")
    return _reader(random.choice([file, folder / "set"]), "sav", random)


def _sav_val(folder: Path, random: Random) -> _Read:
    return _reader(mini.sav_val(folder / "set"), "sav_val", random)


def _ref_sav(folder: Path, random: Random) -> _Read:
    return _reader(mini.ref_sav(folder / "set"), "ref_sav", random)


def _mevis(folder: Path, random: Random) -> _Read:
    return _reader(mini.mevis(folder / "set"), "mevis", random)


def _ref_youtube_vos(folder: Path, random: Random) -> _Read:
    return _reader(mini.ref_youtube_vos(folder / "set"), "ref_youtube_vos", random)


def _davis(folder: Path, random: Random) -> _Read:
    return _reader(mini.davis(folder / "set"), "davis", random)


def _video(folder: Path, random: Random) -> _Read:
    name = random.choice(["a.mp4", "a.mkv", "a.mov", "a.avi"])
    codec = "mpeg4" if name == "a.avi" else random.choice(["mpeg4", "libx264"])
    bframes = random.choice([0, 2]) if codec == "libx264" else 0
    file = mini.video(folder / name, mini.moving_bar(random.choice([1, 9])), codec, gop=4, bframes=bframes)
    order = random.sample(range(9), 9)

    def read() -> None:
        frames = open_frames(file)
        count = sum(1 for _ in frames)
        assert count == len(frames)
        for pixels in frames.read([number for number in order if number < count]):
            assert pixels.shape[:2] == frames.size_hw

    return read


def _folder(folder: Path, random: Random) -> _Read:
    place = mini.frames(folder / "set", ["1", "2", "10"], random.choice([".jpg", ".png"]))
    return lambda: list(open_frames(place))


BUILDERS: dict[str, Callable[[Path, Random], _Read]] = {
    "sav": _sav,
    "sav_val": _sav_val,
    "ref_sav": _ref_sav,
    "mevis": _mevis,
    "ref_youtube_vos": _ref_youtube_vos,
    "davis": _davis,
    "video file": _video,
    "folder of frames": _folder,
}
