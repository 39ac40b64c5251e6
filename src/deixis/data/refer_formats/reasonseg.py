"""ReasonSeg (Lai et al., arXiv 2308.00692): a question that takes reasoning for each image, and regions to ignore.

train/a.jpg   train/a.json: {"text": ["what keeps the rain off?"], "is_sentence": true,
    "shapes": [{"label": "target", "points": [[x, y], …]}, {"label": "ignore", "points": …}]}
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from deixis.data.formats.annotation_files import ImageIndex, holds_text, parse_object
from deixis.data.formats.coco.values import polygons_of
from deixis.data.formats.record import Format
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reads, require_regular, shown
from deixis.data.refer_formats.entries import sentences, settle
from deixis.errors import DataError
from deixis.geometry.rle import bitmap_rle
from deixis.refer_records import Expression, ReferList, ReferSample

_SPLITS = ("train", "val", "test")
_LOOKED_AT = 5  # files, to recognise the format
_TARGET, _IGNORED = 1, 255
_MAX_COORDINATE = 1 << 20  # beyond any image; OpenCV draws in 32 bits


def find_reasonseg(path: Path) -> list[Path]:
    """The first annotations of a folder, or of its `train`, `val` or `test`; or such a file itself."""
    if not path.is_dir():
        return [path] if path.suffix == ".json" and _is_annotation(path) else []
    for folder in (path, *(path / name for name in _SPLITS)):
        if found := [file for file in islice(folder.glob("*.json"), _LOOKED_AT) if _is_annotation(file)]:
            return found
    return []


def _is_annotation(file: Path) -> bool:
    return all(holds_text(file, f'"{key}"') for key in ("shapes", "is_sentence", "text"))


@reads("questions and polygons")
def read_reasonseg(
    path: str | Path, images: Path | None = None, split: str | None = None, faults: list[str] | None = None
) -> ReferList:
    """A folder of images with a JSON file each. Texts of a file are ways to ask for one target.

    Pixels to ignore are no target in training, and count neither as right nor as wrong when measured. Results are
    also reported by kind of text, `sentence` or `phrase`.

    Args:
        images: folder of the images, where they are not beside the JSON files.
        split: `train`, `val` or `test`, where the folder has them.

    Raises:
        DataError: no such split, missing images, or annotations that cannot be used.
    """
    place = Path(path)
    folder = place.parent if place.is_file() else place
    there = [name for name in _SPLITS if (place / name).is_dir()]
    if split is not None or (there and not any(place.glob("*.json"))):
        if split not in there:
            known, first = ", ".join(there) or "none", there[0] if there else "train"
            raise DataError(f"{place}: name the split to read, one of {known}, as in --data '{place}#{first}'")
        folder = place / str(split)
    files = [place] if place.is_file() else sorted(folder.glob("*.json"))
    index = ImageIndex([images or folder])
    bad: list[str] = []
    samples = []
    for number, file in enumerate(files, start=1):
        try:
            image = index.find(f"{file.stem}.jpg", file.stem)
            if image is None:
                raise ValueError(f"no image of that name in {images or folder}")
            samples.append(_sample(file, image, number))
        except (ValueError, DataError) as error:
            bad.append(f"{file.name}: {str(error).removeprefix(f'{file}: ')}")
    settle(str(folder), bad, faults)
    if not samples and faults is None:
        raise DataError(f"{folder}: has no JSON file; there is nothing to train on")
    return ReferList(tuple(samples), name=f"{place.resolve().stem} {split or ''}".strip())


def _sample(file: Path, image: Path, number: int) -> ReferSample:
    content = parse_object(_text(file), str(file))
    size_hw = image_sizes_hw(image)[0]
    drawn = _drawn(content.get("shapes"), size_hw)
    target, ignored = drawn == _TARGET, drawn == _IGNORED
    if not target.any():
        raise ValueError("its target polygons cover no pixel")
    kind = "sentence" if content.get("is_sentence") else "phrase"
    masks = (bitmap_rle(target),), ((bitmap_rle(ignored),) if ignored.any() else ())
    expression = Expression(sentences(content.get("text")), masks[0], (kind,), number, ignored_rle=masks[1])
    return ReferSample(image, size_hw, (expression,), number, file.name)


def _text(file: Path) -> str:
    """A file's text; some of the data set's are not UTF-8 but cp1252."""
    require_regular(file)
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # The bytes that cp1252 leaves undefined become the sign for an unknown character.
        return content.decode("cp1252", errors="replace")


def _drawn(shapes: Any, size_hw: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """1 at targets, 255 where nothing counts; smaller polygons lie on larger ones, edges included."""
    if not isinstance(shapes, list):
        raise ValueError(f"shapes must be a list of polygons, got {shown(shapes)}")
    layers: list[tuple[int, int, np.ndarray]] = []
    for shape in shapes:
        label = shape.get("label") if isinstance(shape, dict) else None
        if not isinstance(label, str):
            raise ValueError(f"a shape needs a label and points, got {shown(shape)}")
        if label.lower() == "flag":  # left over from annotating
            continue
        value = _IGNORED if "ignore" in label.lower() else _TARGET
        for polygon in polygons_of(shape.get("points")):
            if max(map(abs, polygon)) > _MAX_COORDINATE:
                raise ValueError(f"a polygon has a point at {max(polygon, key=abs):g}, far outside the image")
            points = np.array(polygon, np.float64).reshape(-1, 1, 2).astype(np.int32)
            layers.append((int(_painted(np.zeros(size_hw, np.uint8), points, 1).sum()), value, points))
    canvas = np.zeros(size_hw, np.uint8)
    # As the authors' reader does it: whole pixels, the largest area first, the outline drawn besides the filling.
    for _, value, points in sorted(layers, key=lambda layer: -layer[0]):
        _painted(canvas, points, value)
    return canvas


def _painted(canvas: UInt8[np.ndarray, "h w"], points: np.ndarray, value: int) -> UInt8[np.ndarray, "h w"]:
    cv2.polylines(canvas, [points], True, value, 1)
    cv2.fillPoly(canvas, [points], value)
    return canvas


REASONSEG = Format("reasonseg", find_reasonseg, read_reasonseg, takes=("split", "faults"), decisive=True)
