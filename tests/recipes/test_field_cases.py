"""Data sets from public bug reports: each is read as it is meant, or refused in one line that says what to do."""

from __future__ import annotations

import json
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from deixis.data.formats import read_dataset
from deixis.errors import DeixisError

CASES = Path(os.environ.get("DEIXIS_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")).parent / "field_cases"


@dataclass(frozen=True)
class Reads:
    """How a set is to be read: (images, objects, names), and what is said of it."""

    path: str
    counts: tuple[int, int]
    names: tuple[str, ...] = ("raccoon",)
    said: str = ""
    images: str = ""


@dataclass(frozen=True)
class Refused:
    """What the one line says."""

    path: str
    said: str
    images: str = ""


BOTH = ("raccoon", "wash bear")
READ = [
    Reads("01-cvat-yolo11", (8, 8), BOTH),
    Reads("01-cvat-yolo11/obj.data", (8, 8), BOTH),
    Reads("02-labelstudio-yolo", (8, 8), BOTH),
    Reads("02b-labelimg-yolo", (8, 8), BOTH),
    Reads("03-cvat-images-xml", (8, 8)),
    Reads("03-cvat-images-xml/annotations.xml", (8, 8)),
    Reads("04-labelstudio-coco-paths/result.json", (8, 8), said="without the folders in their names"),
    Reads("05-url-encoded-names", (8, 8)),
    Reads("05b-yolo-label-name-encoded", (8, 8), said="4 label files are spelled otherwise than their images"),
    Reads("06-same-basenames/labels.json", (8, 8)),
    Reads("07-roboflow-root-category/train", (6, 6), said="left out the category 'Animals-xYz9'"),
    Reads("07-roboflow-root-category/valid", (2, 2), said="left out the category 'Animals-xYz9'"),
    Reads("08b-yolo-test-split-missing/data.yaml#train", (6, 6)),
    Reads("08b-yolo-test-split-missing/data.yaml#val", (2, 2)),
    Reads("08c-roboflow-yaml-ok/data.yaml#train", (6, 6)),
    Reads("09-cvat-ultralytics/new", (8, 8)),
    Reads("09-cvat-ultralytics/old", (8, 8)),
    Reads("11-obb-labels", (8, 8)),
    Reads("13-string-image-id", (8, 8)),
    Reads("15-voc-odd", (8, 8), ("mapache niño", "raccoon")),
    Reads("16-macos-appledouble", (8, 8)),
    Reads("17-exif-rotated/upright", (8, 8)),
    Reads("17-exif-rotated/stored", (8, 8)),
    Reads("18-avif-heic-yolo", (8, 8)),
    Reads("19-thermal-16bit", (8, 8)),
    Reads("21-yaml-bool-names", (8, 8), ("off", "on")),
    Reads("23b-underscore-names", (8, 8), ("traffic_light", "japanese_fruit", "TrafficSign")),
    Reads("26-val-no-objects/train.json", (6, 6)),
    Reads("26-val-no-objects/val.json", (2, 0)),
    Reads("27-val-category-order/val.json", (8, 8), ("bird", "raccoon")),
    Reads("27-val-category-order/val_other.json", (8, 8), ("Raccoon", "squirrel")),
    Reads("36-hf-parquet-xyxy", (8, 8), said="boxes read as corners"),
    Reads("37-hf-imagefolder", (8, 8), ("0",), "classes have numbers but no names; name them in a file classes.txt"),
    Reads("37-hf-imagefolder/train/metadata.jsonl", (8, 8), ("0",), "classes have numbers but no names"),
    Reads("39-png-masks", (8, 8), ("object",), "has no names of classes; every region is an object"),
    Reads("39-png-masks/masks", (8, 8), ("object",), "name them in a file classes.txt"),
    Reads("42-tfod-csv", (8, 8)),
    Reads("42-tfod-csv/_annotations.csv", (8, 8)),
    Reads(
        "47-kaggle-wheat-csv", (8, 8), ("object",), "no column of classes; every object is 'object'; boxes read as [x"
    ),
    Reads("43-createml", (8, 8)),
    Reads("43c-supervisely", (8, 8)),
    Reads("43c-supervisely/ds/ann", (8, 8)),
    Reads("43b-labelstudio-json", (8, 8), images="../03-cvat-images-xml/images"),
    Reads("43b-labelstudio-json/project-1.json", (8, 8), images="../03-cvat-images-xml/images"),
    Reads("48-coco-no-bbox", (8, 8)),
    Reads("48b-coco-xyxy", (8, 8), said="boxes read as corners"),
    Reads("49-two-classes-same-box", (8, 16), ("raccoon", "animal")),
    Reads("50-flat-segmentation", (8, 8)),
    Reads("50b-triple-nested-segmentation", (8, 8)),
    Reads("63-more-objects-than-queries", (3, 3600), ("red square",)),
]
REFUSED = [
    Refused("06-same-basenames/labels.json", "8 of 8 images are not where their names point: 'cam_b/000.jpg'", "cam_a"),
    Refused("08b-yolo-test-split-missing/data.yaml#test", r"no file or folder '../test/images'"),
    Refused("10-pose-labels-no-kpt-shape", r"no polygon; a box and kpt_shape: \[4, 3\]"),
    Refused("43b-labelstudio-json", "8 of 8 image files not found, the first is '/data/upload/1/0.jpg'"),
    Refused("71-zip-named-json", "annotations.json: is a ZIP archive; unpack it"),
    Refused("71-zip-named-json/annotations.json", "is a ZIP archive; unpack it"),
    Refused("73-yolo-with-confidence", "got 5: predictions with a confidence"),
]


def case(path: str) -> Path:
    if not CASES.is_dir():
        pytest.skip(f"the field cases are absent: {CASES}; set DEIXIS_SHARED_DATA to the folder beside them")
    return CASES / path


def read(one: Reads | Refused):
    images = CASES / one.path.split("/")[0] / one.images if one.images else None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dataset = read_dataset(case(one.path), images, masks=False)
    return dataset, [str(warning.message) for warning in said if issubclass(warning.category, UserWarning)]


@pytest.mark.parametrize("one", READ, ids=lambda one: one.path)
def test_it_is_read_as_it_is_meant(one: Reads) -> None:
    dataset, said = read(one)
    objects = sum(len(dataset[i].instances) for i in range(len(dataset)))
    assert (len(dataset), objects) == one.counts
    assert dataset.vocabulary.names == one.names
    assert len(said) == bool(one.said)
    assert one.said in "".join(said)


@pytest.mark.parametrize("one", REFUSED, ids=lambda one: f"{one.path} {one.images}".strip())
def test_it_is_refused_with_the_way_out(one: Refused) -> None:
    with pytest.raises(DeixisError, match=one.said) as caught:
        read(one)
    text = str(caught.value)
    assert "\n" not in text
    assert not re.search(r"\b(delete|remove) (the|this) file\b", text)


def test_no_field_case_is_forgotten() -> None:
    other = {  # of the commands, tested where those are
        *("23-odd-class-names", "32-truncated-image", "60-predict-mixed-folder", "61-val-category-order-scenes"),
        *("62-truncated-with-val", "64-small-objects-4k", "65-one-class-with-negatives", "80-two-names-one-box"),
        *("81-onnx-batch", "82-out-of-memory", "83-resume-more-epochs", "85-mpo-phone-jpeg", "86-huge-image"),
        *("88-perfect-detections-dense", "90-class-subset-rename-merge"),
    }
    seen = {one.path.split("/")[0] for one in [*READ, *REFUSED]} | other
    assert {folder.name for folder in case(".").iterdir() if folder.is_dir()} <= seen


def test_true_boxes_are_found_in_corners_and_polygons() -> None:
    polygons, _ = read(Reads("48-coco-no-bbox", (8, 8)))
    content = json.loads((case("48-coco-no-bbox") / "labels.json").read_text())
    for index in range(len(polygons)):
        sample = polygons[index]
        (row,) = [row for row in content["annotations"] if row["image_id"] == sample.image_id]
        xs, ys = row["segmentation"][0][::2], row["segmentation"][0][1::2]
        assert sample.instances.boxes_xyxy_px[0].tolist() == [min(xs), min(ys), max(xs), max(ys)]
    corners, _ = read(Reads("48b-coco-xyxy", (8, 8)))
    given = {
        row["image_id"]: row["bbox"]
        for row in json.loads((case("48b-coco-xyxy") / "labels.json").read_text())["annotations"]
    }
    for index in range(len(corners)):
        assert corners[index].instances.boxes_xyxy_px[0].tolist() == given[corners[index].image_id]
