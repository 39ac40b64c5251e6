"""Builders for the readers of detection, and for pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.findings import Findings
from deixis.data.formats import read_dataset
from deixis.data.formats.table import FORMATS, WRITTEN
from deixis.data.formats.writing import write_dataset
from deixis.data.pixels.images import image_sizes_hw, load, load_image
from deixis.records import Instances, Sample, SampleList, Vocabulary

_NAMES = ("cat", "red bird", "größe")


def small_set(random: Random, count: int = 3) -> SampleList:
    """Pictures of a few pixels with boxes and masks."""
    vocabulary = Vocabulary(_NAMES)
    samples = []
    for number in range(1, count + 1):
        size_hw = (random.randrange(4, 30), random.randrange(4, 30))
        boxes, masks = [], []
        for _ in range(random.randrange(1, 4)):
            x, y = random.randrange(size_hw[1] - 2), random.randrange(size_hw[0] - 2)
            bitmap = np.zeros(size_hw, np.uint8, "F")
            bitmap[y : y + 2, x : x + 2] = 1
            boxes.append([x, y, x + 2, y + 2])
            masks.append(coco_mask.encode(bitmap))
        ids = [random.randrange(len(_NAMES)) for _ in boxes]
        instances = Instances.build(boxes, ids, None, areas_px=None, masks_rle=masks)
        pixels = np.full((*size_hw, 3), 80 * number % 256, np.uint8)
        samples.append(Sample(pixels, size_hw, instances, vocabulary, number, f"image {number}"))
    return SampleList(tuple(samples), vocabulary)


def read_all(path: Path | str, format: str | None, checked: bool) -> None:
    """A data set with all of its samples and pictures, as training reads it or as `data check` does."""
    dataset = read_dataset(path, format=format, findings=Findings() if checked else None)
    for index in range(len(dataset)):
        load(dataset[index])


def _build(format: str, folder: Path, random: Random) -> Callable[[], object]:
    written = write_dataset(small_set(random), folder / "set", format, masks=random.random() < 0.8)
    if format == "coco" and random.random() < 0.5:
        _with_polygons(written)
    path = written if random.random() < 0.7 else folder / "set"
    return partial(read_all, path, format if random.random() < 0.8 else None, random.random() < 0.3)


def _example(format: str, folder: Path, random: Random) -> Callable[[], object]:
    """A set of a format that is only read."""
    from format_examples import write_example  # which imports this module

    main = write_example(format, folder / "set")
    alone = random.random() < 0.3 and FORMATS[format].find(main)  # a single mask is no data set
    path = main if alone else folder / "set"
    return partial(read_all, path, format if random.random() < 0.8 else None, random.random() < 0.3)


def _with_polygons(file: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    file.write_text(json.dumps(content), encoding="utf-8")


def _voc_split(folder: Path, random: Random) -> Callable[[], object]:
    write_dataset(small_set(random), folder / "set", "voc")
    lists = folder / "set" / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    stems = sorted(file.stem for file in (folder / "set").rglob("*.xml"))
    (lists / "train.txt").write_text("\n".join(stems) + "\n")
    return partial(read_all, f"{folder / 'set'}#train", "voc", random.random() < 0.3)


def _odd_parquet(folder: Path, random: Random) -> Callable[[], object]:
    """The layout's columns with values of other kinds than it wants."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def odd() -> Any:
        return random.choice(_ODD_COLUMNS)

    def column(usual: list[Any]) -> pa.Array:
        for values in (odd() if random.random() < 0.3 else usual, usual, [1, 2]):
            try:
                return pa.array(values)
            except (pa.ArrowException, OverflowError):
                continue
        raise AssertionError("whole numbers are a column")

    picture = folder / "a.png"
    Image.new("RGB", (20, 10)).save(picture)
    stored = {"bytes": picture.read_bytes(), "path": "a.png"}
    objects = [{"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": ["cat"], "area": [12.0], "iscrowd": [False]}] * 2
    for key in list(objects[0]):
        if random.random() < 0.2:
            objects = [{**row, key: odd()} for row in objects]
    columns = {"image": [stored] * 2, "objects": objects, "image_id": [1, 2], "width": [20, 20], "height": [10, 10]}
    kept = {name: column(values) for name, values in columns.items() if random.random() < 0.95}
    file = folder / "train-00000.parquet"
    try:
        table = pa.table(kept)
    except (pa.ArrowException, ValueError):
        table = pa.table({"image": [1]})
    if random.random() < 0.5:
        text = f'{{"info": {{"features": {{"objects": {random.choice(_ODD_FEATURES)}}}}}}}'
        table = table.replace_schema_metadata({"huggingface": text})
    pq.write_table(table, file)
    return partial(read_all, file if random.random() < 0.5 else folder, None, random.random() < 0.3)


_ODD_COLUMNS: list[list[Any]] = [
    [None, None], [1, 2], [-1.5, float("nan")], ["x", ""], [b"\x00", b"\xff"], [[1.0], []], [[["a"]], [[]]],
    [{"a": 1}, None], [{"bytes": None, "path": None}] * 2, [{"bytes": b"x", "path": 5}] * 2, [[None], [None, 1]],
    [True, False], [2**62, -(2**62)], [[{"bbox": [1.0], "category": 2}], []], [{"bbox": None, "category": None}] * 2,
    [[[1.0, 2.0, None, 4.0]], [[1.0] * 5]], [[["1", "2", "3", "4"]], []], [1e308, -1e308], [["\x1b[31m"], ["[/]"]],
]  # fmt: skip
_ODD_FEATURES = [
    '{"category": {"_type": "ClassLabel", "names": ["cat", "dog"]}}', '[]', '{"category": {"_type": "ClassLabel"}}',
    '{"category": {"_type": "ClassLabel", "names": [1, null]}}', '{"category": {"_type": "ClassLabel", "names": []}}',
    '{"category": {"feature": ' * 3 + '1' + '}}' * 3, '{"category": {"_type": "ClassLabel", "names": ["a", "a"]}}',
]  # fmt: skip


def _picture(folder: Path, random: Random) -> Callable[[], object]:
    suffix = random.choice([".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".ppm", ".pgm"])
    mode = random.choice(["L", "RGB"] if suffix in (".jpg", ".ppm", ".pgm", ".webp") else ["L", "RGB", "P", "1"])
    file = folder / f"picture{suffix}"
    Image.frombytes("L", (13, 9), random.randbytes(13 * 9)).convert(mode).save(file)

    def read() -> None:
        image_sizes_hw(file)
        load_image(file, random.choice([None, 4]))

    return read


BUILDERS: dict[str, Callable[[Path, Random], Callable[[], object]]] = {
    **{name: partial(_build, name) for name in WRITTEN},
    **{name: partial(_example, name) for name in FORMATS if name not in WRITTEN},
    "voc split": _voc_split,
    "parquet odd": _odd_parquet,
    "picture": _picture,
}
