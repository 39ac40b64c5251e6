"""LVIS: what was looked for in each image is kept, on top of all that COCO's reader does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deixis.data.formats import read_dataset
from deixis.data.formats.lvis import read_lvis
from deixis.errors import DataError


def content() -> dict[str, Any]:
    """As LVIS v1 writes it: no file_name, names with underscores, no iscrowd."""
    url = "http://images.cocodataset.org/train2017/"
    size = {"height": 10, "width": 40}
    return {
        "images": [
            {
                "id": 391,
                "coco_url": f"{url}000000000391.jpg",
                "neg_category_ids": [7],
                "not_exhaustive_category_ids": [3],
                **size,
            },
            {
                "id": 12,
                "coco_url": f"{url}000000000012.jpg",
                "neg_category_ids": [3, 5, 7],
                "not_exhaustive_category_ids": [],
                **size,
            },
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 391,
                "category_id": 3,
                "bbox": [2, 1, 30, 5],
                "area": 100.5,
                "segmentation": [[2, 1, 32, 1, 32, 6, 2, 6]],
            }
        ],
        "categories": [
            {"id": 3, "name": "air_conditioner", "synset": "air_conditioner.n.01", "frequency": "f"},
            {"id": 5, "name": "bat_(animal)", "synset": "bat.n.01", "frequency": "r"},
            {"id": 7, "name": "zebra", "synset": "zebra.n.01", "frequency": "f"},
        ],
    }


def write(folder: Path, labels: dict[str, Any]) -> Path:
    (folder / "train2017").mkdir(parents=True, exist_ok=True)
    for name in ("000000000391.jpg", "000000000012.jpg"):
        Image.new("RGB", (40, 10)).save(folder / "train2017" / name)
    (folder / "lvis_v1_train.json").write_text(json.dumps(labels))
    return folder / "lvis_v1_train.json"


def test_a_file_as_lvis_writes_it(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, content()))
    assert dataset.vocabulary.names == ("air conditioner", "bat (animal)", "zebra")
    assert dataset.vocabulary.category_ids == (3, 5, 7)
    first, second = dataset[0], dataset[1]
    assert first.image == tmp_path / "train2017" / "000000000391.jpg"
    np.testing.assert_array_equal(first.instances.boxes_xyxy_px, [[2, 1, 32, 6]])
    np.testing.assert_array_equal(first.instances.areas_px, [100.5])
    assert first.instances.masks_rle is not None
    assert first.absent_class_ids == {2}
    assert first.known_absent_class_ids == {2}, "nobody looked for the bat"
    assert first.not_exhaustive_class_ids == {0}
    assert second.absent_class_ids is None, "all classes were looked for"
    assert second.known_absent_class_ids == {0, 1, 2}


def test_the_folder_is_recognised_and_coco_can_be_asked_for(tmp_path: Path) -> None:
    write(tmp_path, content())
    assert read_dataset(tmp_path)[0].absent_class_ids == {2}
    labels = content()
    for row in labels["images"]:
        row["file_name"] = row["coco_url"].rsplit("/", 1)[-1]
    write(tmp_path, labels)
    assert read_dataset(tmp_path, images=tmp_path / "train2017", format="coco")[0].absent_class_ids is None


FAULTS = {
    "no list": ({"neg_category_ids": None}, "image 391: neg_category_ids must be a list"),
    "unknown": ({"neg_category_ids": [7, 8]}, r"image 391: neg_category_ids has \[8\], not in categories"),
    "text": ({"not_exhaustive_category_ids": ["3"]}, r"not_exhaustive_category_ids has \['3'\]"),
    "both": ({"neg_category_ids": [3]}, r"image 391: classes \['air conditioner'\] are annotated but also listed"),
    "no name": ({"coco_url": 5}, "image 391 has no file_name"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_clear_line(tmp_path: Path, name: str) -> None:
    change, message = FAULTS[name]
    labels = content()
    labels["images"][0].update(change)
    with pytest.raises(DataError, match=message) as caught:
        read_lvis(write(tmp_path, labels))
    assert "\n" not in str(caught.value)
    assert "lvis_v1_train.json" in str(caught.value)
