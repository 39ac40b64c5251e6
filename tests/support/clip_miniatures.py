"""Small videos and faithful miniatures of the public data sets of clips: the same files, keys and quirks."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

SIZE_HW = (32, 48)


def moving_bar(count: int, size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    """Frames that can be told apart after lossy coding: grey levels that tell the number, and a bar that wanders."""
    frames = np.zeros((count, *size_hw, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[:] = 30 + (i * 37) % 200
        frame[:, i % size_hw[1]] = 255
    return frames


def video(path: Path, frames: np.ndarray, codec: str = "mpeg4", gop: int = 6, bframes: int = 0, fps: int = 24) -> Path:
    """A video file of some frames, with a key frame every `gop` frames and nowhere else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=Fraction(fps), options={"sc_threshold": "0" if codec == "libx264" else "1000000000"}
        )
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, bframes
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def box(left: int, size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    """A mask of 10 x 6 pixels from a column on."""
    mask = np.zeros(size_hw, np.uint8)
    mask[4:14, left : left + 6] = 1
    return mask


def rle(mask: np.ndarray) -> dict[str, Any]:
    """As JSON holds it: counts are text."""
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def columns(masks: Any) -> list[int | None]:
    """The first column of each mask, None where there is none: where a `box` stands."""
    return [None if m is None else int(np.flatnonzero(coco_mask.decode(m).any(0))[0]) for m in masks]


def frames(folder: Path, names: list[str], suffix: str = ".jpg", size_hw: tuple[int, int] = SIZE_HW) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in zip(names, moving_bar(len(names), size_hw), strict=True):
        Image.fromarray(pixels).save(folder / f"{name}{suffix}")
    return folder


def palette_png(path: Path, numbers: np.ndarray) -> Path:
    """An indexed PNG whose colours have nothing to do with its numbers, as DAVIS's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers, "P")
    image.putpalette([value for i in range(256) for value in ((i * 97) % 256, (i * 53) % 256, 128)])
    image.save(path)
    return path


def sav(root: Path, number: int = 1, kind: str = "manual", rows: Any = None, **changes: Any) -> Path:
    """A video of 9 frames and its annotation: frames 0, 4, 8; object 0 stays, 1 comes late, 2 goes and returns."""
    name = f"sav_{number:06d}"
    if not (root / f"{name}.mp4").is_file():
        video(root / f"{name}.mp4", moving_bar(9), "libx264", bframes=2)
    if rows is None:
        rows = [
            [rle(box(0)), None, rle(box(30))],
            [rle(box(4)), None, None],
            [rle(box(8)), rle(box(20)), rle(box(34))],
        ]
    content = {
        "video_id": name,
        "video_duration": 0.375,
        "video_frame_count": 9.0,
        "video_height": float(SIZE_HW[0]),
        "video_width": float(SIZE_HW[1]),
        "video_resolution": float(SIZE_HW[0] * SIZE_HW[1]),
        "masklet": rows,
        "masklet_id": [0, 1, 2],
        "masklet_num": 3,
        "masklet_type": [kind] * 3,
        "masklet_edited_frame_count": [1, 1, 1],
    }
    file = root / f"{name}_{kind}.json"
    file.write_text(json.dumps({**content, **changes}))
    return file


def sav_val(root: Path) -> Path:
    """One video of 9 frames; object 000 in frames 0, 4 and 8, object 001 in frame 4 alone, with an empty PNG in 8."""
    frames(root / "JPEGImages_24fps" / "sav_000262", [f"{i:05d}" for i in range(9)])
    for number, frame, mask in ((0, 0, box(0)), (0, 4, box(4)), (0, 8, box(8)), (1, 4, box(20)), (1, 8, 0 * box(0))):
        path = root / "Annotations_6fps" / "sav_000262" / f"{number:03d}" / f"{frame:05d}.png"
        palette_png(path, mask)
    (root / "sav_val.txt").write_text("sav_000262\n")
    return root


def ref_sav(root: Path) -> Path:
    sav(root / "sav_train" / "sav_000", 7)
    entry = {
        "video_path": "sav_train/sav_000/sav_000007.mp4",
        "anno_path": "sav_train/sav_000/sav_000007_manual.json",
        "objects": {"0": {"formated": "The box that stays in sight."}, "2": {"formated": "The one that returns."}},
    }
    (root / "Ref-SAV.json").write_text(json.dumps({"sav_000007": entry}))
    return root / "Ref-SAV.json"


MEVIS_EXPRESSIONS = {
    "0": {"exp": "the box moving right", "obj_id": [0], "anno_id": [11]},
    "1": {"exp": "both boxes", "obj_id": [0, 1], "anno_id": [11, 12]},
    "2": {"exp": "the one that comes late", "obj_id": [1], "anno_id": [12]},
}
MEVIS_MASKS = {
    "11": [rle(box(0)), rle(box(4)), rle(box(8)), None],
    "12": [None, None, rle(box(10)), rle(box(14))],
    "99": [rle(box(0))],  # of another video
}


def mevis(root: Path, expressions: Any = None, masks: Any = None) -> Path:
    names = [f"{i:05d}" for i in range(4)]
    frames(root / "JPEGImages" / "2da2", names)
    entry = {"expressions": MEVIS_EXPRESSIONS if expressions is None else expressions, "vid_id": 0, "frames": names}
    (root / "meta_expressions.json").write_text(json.dumps({"videos": {"2da2": entry}}))
    (root / "mask_dict.json").write_text(json.dumps(MEVIS_MASKS if masks is None else masks))
    return root


def ref_youtube_vos(root: Path) -> Path:
    """Every fifth frame is listed; object 1 vanishes and returns, object 2 is always there; video `0b` has no masks."""
    names = [f"{i:05d}" for i in (0, 5, 10)]
    videos = {}
    for video_name in ("0a", "0b"):
        frames(root / "train" / "JPEGImages" / video_name, names)
        said = {"0": {"exp": "a box on the left", "obj_id": "1"}, "1": {"exp": "the box that stays", "obj_id": "2"}}
        videos[video_name] = {"expressions": said, "frames": names}
    for name, first in zip(names, (box(0), 0 * box(0), box(8)), strict=True):
        palette_png(root / "train" / "Annotations" / "0a" / f"{name}.png", first + 2 * box(30))
    file = root / "meta_expressions" / "train" / "meta_expressions.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"videos": videos}))
    return file


def davis(root: Path, text: bool = True) -> Path:
    """`bear` with objects 1 and 2 (2 in the last frame only); `cow` labelled in its first frame alone."""
    for name in ("bear", "cow"):
        frames(root / "JPEGImages" / "480p" / name, [f"{i:05d}" for i in range(3)])
    for i in range(3):
        place = root / "Annotations" / "480p" / "bear" / f"{i:05d}.png"
        palette_png(place, box(4 * i) + 2 * box(30) * np.uint8(i == 2))
    palette_png(root / "Annotations" / "480p" / "cow" / "00000.png", box(3))
    for split, videos in (("train", "bear\n"), ("val", "cow\n")):
        place = root / "ImageSets" / "2017" / f"{split}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(videos)
    if text:
        folder = root / "davis_text_annotations"
        folder.mkdir()
        (folder / "Davis17_annot1.txt").write_text('bear 1 "a brown bear"\nbear 2 "a cub"\ncow 1 "a cow"\n')
        (folder / "Davis17_annot2.txt").write_text('bear 1 "the bear walking"\n\ncow 1 "a cow"\n')
    return root
