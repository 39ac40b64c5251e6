"""Writing tracked phrases: the masks of every frame as one JSON file, and the video with the masks drawn in.

Both are written frame by frame; the video is never kept in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as coco_mask

from deixis.atomic_files import file_aside
from deixis.data.pixels.frames import video_writer
from deixis.errors import DataError
from deixis.inference.outputs.segmentations import DrawMasks, segmentation_record
from deixis.refer_records import Segmentation

MASKS, VIDEO = "masks.json", "video.mp4"
AddFrame = Callable[[UInt8[np.ndarray, "h w 3"], Sequence[Segmentation]], None]


@contextmanager
def track_writer(
    folder: Path, video: str, phrases: Sequence[str], *, rate: Fraction | int = 24, draw: DrawMasks | None = None
) -> Iterator[AddFrame]:
    """Yields a function that takes each frame with its records, in order. The files appear when the block succeeds.

    `masks.json`: {"video", "frames", "size": [height, width], "phrases": [{"text", "masks": [RLE or null, ...],
    "scores": [...], "present": [...]}]}, with one entry per frame in every list; null where the object is not visible.

    Args:
        video: the video's name in the file.
        rate: frames per second of the drawn `video.mp4`.
        draw: draws masks onto a frame; None writes no video.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        size_hw: list[tuple[int, int]] = []
        with ExitStack() as opened:
            # `masks.json` lists masks by phrase, but they come by frame: until the end they wait in another file.
            lines = opened.enter_context(
                TemporaryFile("w+", encoding="utf-8", errors="backslashreplace", prefix=".lines.", dir=folder)
            )
            masks_draft = opened.enter_context(file_aside(folder / MASKS))
            paint = None
            if draw is not None:
                # Entered after its file and so left before it: the video is whole when it takes its name.
                paint = opened.enter_context(video_writer(opened.enter_context(file_aside(folder / VIDEO)), rate))

            def add(pixels: np.ndarray, records: Sequence[Segmentation]) -> None:
                if not size_hw:
                    size_hw.append(pixels.shape[:2])
                lines.write(json.dumps([_entry(record) for record in records]) + "\n")
                if draw is not None and paint is not None:
                    masks = [np.asarray(coco_mask.decode(record.mask_rle), dtype=bool) for record in records]
                    paint(draw(pixels, masks, [record.text for record in records]))

            yield add
            with masks_draft.open("w", encoding="utf-8", errors="backslashreplace") as whole:
                _by_phrase(lines, whole, {"video": video, "size": size_hw[0] if size_hw else None}, phrases=phrases)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error


def _entry(record: Segmentation) -> list[Any]:
    values = segmentation_record(record)
    return [values["segmentation"] if values["area"] else None, values["score"], values["present"]]


def _by_phrase(lines: IO[str], whole: IO[str], head: dict[str, Any], *, phrases: Sequence[str]) -> None:
    """Turn one line per frame into lists per phrase, with one pass over the lines per list, so little is in memory."""
    lines.seek(0)
    frames = sum(1 for _ in lines)
    # the head without its closing brace, which is written last
    whole.write(json.dumps({**head, "frames": frames}, ensure_ascii=False)[:-1] + ', "phrases": [')
    for phrase, text in enumerate(phrases):
        whole.write(("," if phrase else "") + f'\n{{"text": {json.dumps(text, ensure_ascii=False)}')
        for part, name in enumerate(("masks", "scores", "present")):
            whole.write(f', "{name}": [')
            lines.seek(0)
            for number, line in enumerate(lines):
                whole.write((", " if number else "") + json.dumps(json.loads(line)[phrase][part]))
            whole.write("]")
        whole.write("}")
    whole.write("\n]}\n")
