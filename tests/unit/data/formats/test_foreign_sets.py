"""A hundred random data sets of each format that is only read, and forty of layouts that our writers do not use.

The tests write the files from the record, apart from our writers.
"""

from __future__ import annotations

import base64
import csv
import json
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from random_datasets import assert_same_annotations, datasets, painted

from deixis.data.formats import read_dataset
from deixis.data.formats.shards.write import write_shards
from deixis.data.formats.table import FORMATS, WRITTEN
from deixis.records import Rle, Sample, SampleList

# beartype checks an element of a list that it picks by `random`, inside strategies too
pytestmark = [
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning"),
    pytest.mark.slow,
]  # a hundred random data sets per format

SETS = 100
Objects = list[tuple[str, list[float], Rle | None]]  # label, corners in pixels, mask


def objects(sample: Sample) -> Objects:
    found = sample.instances
    names = [sample.vocabulary.names[i] for i in found.class_ids.tolist()]
    return list(zip(names, found.boxes_xyxy_px.tolist(), found.masks_rle or [None] * len(names), strict=True))


def picture(sample: Sample, file: Path) -> str:
    """An image of the sample's size in a new file; the file's name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", sample.size_hw[::-1]).save(file)
    return file.name


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def supervisely(dataset: SampleList, home: Path) -> Path:
    """Bitmaps for masks, rectangles for boxes; `meta.json` lists the classes."""
    (home / "ds/ann").mkdir(parents=True)
    for number, sample in enumerate(dataset.samples):
        rows = []
        for label, (x1, y1, x2, y2), rle in objects(sample):
            row: dict[str, Any] = {"classTitle": label, "geometryType": "rectangle"}
            if rle is None:
                row["points"] = {"exterior": [[x2, y2], [x1, y1]], "interior": []}
            else:
                pixels = coco_mask.decode(rle)[int(y1) : int(y2), int(x1) : int(x2)] * np.uint8(255)
                data = base64.b64encode(zlib.compress(png(np.ascontiguousarray(pixels)))).decode()
                row |= {"geometryType": "bitmap", "bitmap": {"data": data, "origin": [int(x1), int(y1)]}}
            rows.append(row)
        height, width = sample.size_hw
        content = {"description": "", "tags": [], "size": {"height": height, "width": width}, "objects": rows}
        name = picture(sample, home / "ds/img" / f"{number}.png")
        (home / "ds/ann" / f"{name}.json").write_text(json.dumps(content))
    classes = [{"title": name, "shape": "any"} for name in dataset.vocabulary.names]
    (home / "meta.json").write_text(json.dumps({"classes": classes}))
    return home


def coco_panoptic(dataset: SampleList, home: Path) -> Path:
    """Segments as colours of PNGs; ids beyond one and two bytes among them."""
    (home / "panoptic").mkdir()
    images, annotations = [], []
    for number, sample in enumerate(dataset.samples):
        name, segments = picture(sample, home / "images" / f"{number}.jpg"), []
        ids = np.zeros(sample.size_hw, np.int64)
        for place, (class_id, crowd) in enumerate(
            zip(sample.instances.class_ids.tolist(), sample.instances.is_crowd.tolist(), strict=True)
        ):
            segment = (1, 300, 70_000)[place] + number
            ids[coco_mask.decode((sample.instances.masks_rle or ())[place]) > 0] = segment
            segments.append({"id": segment, "category_id": 10 * class_id + 3, "iscrowd": int(crowd)})
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        (home / "panoptic" / f"{number}.png").write_bytes(png(colours))
        images.append({"id": 50 - number, "file_name": name})
        annotations.append({"image_id": 50 - number, "file_name": f"{number}.png", "segments_info": segments})
    categories = [
        {"id": 10 * place + 3, "name": name, "isthing": 1} for place, name in enumerate(dataset.vocabulary.names)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (home / "panoptic.json").write_text(json.dumps(content))
    return home / "panoptic.json"


def png_masks(dataset: SampleList, home: Path) -> Path:
    """Pascal VOC's two folders: the number of each pixel's object, and the one of its class."""
    for number, sample in enumerate(dataset.samples):
        picture(sample, home / "JPEGImages" / f"{number}.jpg")
        single, kinds = np.zeros((2, *sample.size_hw), np.uint8)
        for place, rle in enumerate(sample.instances.masks_rle or ()):
            drawn = coco_mask.decode(rle) > 0
            single[drawn], kinds[drawn] = place + 1, sample.instances.class_ids[place] + 1
        for folder, pixels in (("SegmentationObject", single), ("SegmentationClass", kinds)):
            (home / folder).mkdir(exist_ok=True)
            (home / folder / f"{number}.png").write_bytes(png(pixels))
    lines = "".join(f"{name}\n" for name in dataset.vocabulary.names)
    (home / "classes.txt").write_text(lines, encoding="utf-8")
    return home / "SegmentationObject"


def predictions(dataset: SampleList, home: Path) -> Path:
    """One entry per image, as `detect predict` writes them."""
    entries = []
    for number, sample in enumerate(dataset.samples):
        name, (height, width) = picture(sample, home / f"{number}.png"), sample.size_hw
        scores = (np.zeros(0) if sample.instances.scores is None else sample.instances.scores).tolist()
        found = [
            {"label": label, "score": score, "box_xyxy_px": box}
            for (label, box, _), score in zip(objects(sample), scores, strict=True)
        ]
        entry = {"file": name, "image_id": sample.image_id, "width": width, "height": height, "objects": found}
        entries.append(entry | {"model": sample.model_version})
    (home / "predictions.json").write_text(json.dumps(entries))
    return home


def shares(box: list[float], size_hw: tuple[int, int]) -> list[float]:
    """x, y, width, height over the image's size."""
    x1, y1, x2, y2 = box
    height, width = size_hw
    return [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]


def fiftyone_samples(dataset: SampleList, home: Path) -> Path:
    """FiftyOneDataset's `samples.json`."""
    samples = []
    for number, sample in enumerate(dataset.samples):
        name = picture(sample, home / "data" / f"{number}.png")
        found = [
            {"_cls": "Detection", "label": label, "bounding_box": shares(box, sample.size_hw)}
            for label, box, _ in objects(sample)
        ]
        samples.append({"filepath": f"data/{name}", "ground_truth": {"_cls": "Detections", "detections": found}})
    (home / "samples.json").write_text(json.dumps({"samples": samples}))
    (home / "metadata.json").write_text("{}")
    return home


def via_table(dataset: SampleList, home: Path) -> Path:
    """VIA's CSV, shapes and attributes as JSON in their columns."""
    with (home / "via.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        head = ["filename", "file_size", "file_attributes", "region_count", "region_id"]
        rows.writerow([*head, "region_shape_attributes", "region_attributes"])
        for number, sample in enumerate(dataset.samples):
            name, found = picture(sample, home / f"{number}.png"), objects(sample)
            for place, (label, (x1, y1, x2, y2), _) in enumerate(found):
                shape = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
                rows.writerow([name, 9, "{}", len(found), place, json.dumps(shape), json.dumps({"kind": label})])
            if not found:
                rows.writerow([name, 9, "{}", 0, 0, "{}", "{}"])
    return home


def label_studio_min(dataset: SampleList, home: Path) -> Path:
    """Label Studio's JSON-MIN: percents of the image."""
    tasks = []
    for number, sample in enumerate(dataset.samples):
        name, (height, width) = picture(sample, home / "images" / f"{number}.png"), sample.size_hw
        found = []
        for label, box, _ in objects(sample):
            sides = dict(
                zip(("x", "y", "width", "height"), [100 * n for n in shares(box, (height, width))], strict=True)
            )
            size = {"original_width": width, "original_height": height}
            found.append({**sides, **size, "rotation": 0, "rectanglelabels": [label]})
        tasks.append({"image": f"/data/upload/1/{name}", "id": number + 1, "label": found})
    (home / "project-1.json").write_text(json.dumps(tasks))
    return home


def labelimg(dataset: SampleList, home: Path) -> Path:
    """Text files beside the pictures, and `classes.txt`."""
    for number, sample in enumerate(dataset.samples):
        picture(sample, home / f"{number}.png")
        lines = []
        for class_id, (_, box, _) in zip(sample.instances.class_ids.tolist(), objects(sample), strict=True):
            x, y, width, height = shares(box, sample.size_hw)
            lines.append(f"{class_id} {x + width / 2!r} {y + height / 2!r} {width!r} {height!r}\n")
        (home / f"{number}.txt").write_text("".join(lines))
    names = "".join(f"{name}\n" for name in dataset.vocabulary.names)
    (home / "classes.txt").write_text(names, encoding="utf-8")
    return home / "classes.txt"


def cvat_video(dataset: SampleList, home: Path) -> Path:
    """Tracks of one frame each in CVAT for video 1.1, and the frames as pictures."""
    tracks = []
    for frame, sample in enumerate(dataset.samples):
        picture(sample, home / "images" / f"frame_{frame:06d}.png")
        for label, box, _ in objects(sample):
            corners = " ".join(
                f'{key}="{value!r}"' for key, value in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)
            )
            shown = f'<box frame="{frame}" outside="0" keyframe="1" {corners}/>'
            gone = f'<box frame="{frame + 1}" outside="1" keyframe="1" {corners}/>'
            tracks.append(f'<track id="{len(tracks)}" label={quoteattr(label)}>{shown}{gone}</track>')
    height, width = dataset.samples[0].size_hw
    labels = "".join(f"<label><name>{name}</name></label>" for name in map(_escaped, dataset.vocabulary.names))
    count = f"<size>{len(dataset)}</size><start_frame>0</start_frame><stop_frame>{len(dataset) - 1}</stop_frame>"
    size = f"<original_size><width>{width}</width><height>{height}</height></original_size>"
    meta = f"<meta><task>{count}<mode>interpolation</mode><labels>{labels}</labels>{size}</task></meta>"
    text = f"<annotations><version>1.1</version>{meta}{''.join(tracks)}</annotations>"
    (home / "annotations.xml").write_text(text, encoding="utf-8")
    return home


def _escaped(text: str) -> str:
    return quoteattr(text)[1:-1].replace('"', "&quot;")


def found_by_a_model(dataset: SampleList) -> SampleList:
    """With scores on every object, and the model that found them."""
    samples = []
    for sample in dataset.samples:
        scores = np.linspace(0.1, 0.9, len(sample.instances)) if len(sample.instances) else None
        samples.append(sample.evolve(instances=replace(sample.instances, scores=scores), model_version="m"))
    return SampleList(tuple(samples), dataset.vocabulary)


def shards(dataset: SampleList, home: Path) -> Path:
    """As `deixis data shard` writes them."""
    write_shards(dataset, home / "shards", "webdataset")
    return home / "shards"


def has_objects(dataset: SampleList) -> bool:
    return any(len(sample.instances) for sample in dataset.samples)


Layout = tuple[Callable[[SampleList, Path], Path], st.SearchStrategy[SampleList]]
ONLY_READ: dict[str, Layout] = {
    "supervisely": (supervisely, datasets("supervisely")),
    "coco_panoptic": (coco_panoptic, painted(crowds=True)),
    "png_masks": (png_masks, painted()),
    "predictions": (predictions, datasets("predictions").map(found_by_a_model)),
    "shards": (shards, datasets("shards")),
}
LAYOUTS: dict[str, Layout] = {
    "fiftyone samples": (fiftyone_samples, datasets("fiftyone samples")),
    "via table": (via_table, datasets("via table")),
    "label_studio min": (label_studio_min, datasets("label_studio min")),
    "darknet labelimg": (labelimg, datasets("darknet labelimg")),
    "cvat video": (cvat_video, datasets("cvat video", size_hw=(9, 31)).filter(has_objects)),
}


def assert_read_as_it_is(layout: str, write: Callable[[SampleList, Path], Path], dataset: SampleList) -> None:
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as home, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        read = read_dataset(write(dataset, Path(home)), format=layout.split()[0])
        assert read.vocabulary == dataset.vocabulary
        for index, sample in enumerate(dataset.samples):
            assert_same_annotations(sample, read[index].evolve(image=sample.image))


@pytest.mark.parametrize("format", ONLY_READ)
@settings(deadline=None, max_examples=SETS)
@given(data=st.data())
def test_a_set_of_a_format_that_is_only_read_is_read_as_it_is(format: str, data: st.DataObject) -> None:
    write, sets = ONLY_READ[format]
    assert_read_as_it_is(format, write, data.draw(sets))


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=SETS)
@given(data=st.data())
def test_a_set_in_a_layout_that_is_not_written_is_read_as_it_is(layout: str, data: st.DataObject) -> None:
    write, sets = LAYOUTS[layout]
    assert_read_as_it_is(layout, write, data.draw(sets))


def test_each_format_is_tried_by_its_writer_or_here() -> None:
    assert set(FORMATS) == {*WRITTEN, *ONLY_READ, "review"}  # reviews: test_readers_review
