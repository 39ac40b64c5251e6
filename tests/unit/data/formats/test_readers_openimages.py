"""Open Images: the CSV files as published, in part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data.formats import read_dataset
from deixis.data.formats.openimages.read import read_openimages
from deixis.errors import DataError

WIDTH, HEIGHT = 40, 10
HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
BOXES = (
    "000a1249af2bc5f0,xclick,/m/0cmf2,1,0.25,0.5,0.1,0.9,0,1,0,0,0\n"
    "000a1249af2bc5f0,xclick,/m/04bcr3,1,0,1,0.5,1,0,0,1,0,0\n"
    "111c5d2d5d5e5c5b,activemil,/m/0cmf2,1,0.5,0.75,0,1,-1,-1,-1,-1,-1\n"
)
CLASSES = '/m/04bcr3,Table\n/m/0cmf2,"Airplane, toy"\n/m/011k07,Tortoise\n'
VERIFIED = (
    "ImageID,Source,LabelName,Confidence\n"
    "000a1249af2bc5f0,verification,/m/0cmf2,1\n"
    "000a1249af2bc5f0,verification,/m/011k07,0\n"
    "222c5d2d5d5e5c5b,crowdsource-verification,/m/04bcr3,0\n"
)


def write(
    folder: Path, boxes: str = BOXES, classes: str | None = CLASSES, header: str = HEADER, images: str = "images"
) -> Path:
    (folder / images).mkdir(exist_ok=True, parents=True)
    for name in ("000a1249af2bc5f0", "111c5d2d5d5e5c5b", "222c5d2d5d5e5c5b"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / images / f"{name}.jpg")
    (folder / "train-annotations-bbox.csv").write_text(header + boxes)
    if classes is not None:
        (folder / "class-descriptions-boxable.csv").write_text(classes)
    return folder / "train-annotations-bbox.csv"


def test_boxes_and_groups(tmp_path: Path) -> None:
    write(tmp_path)
    dataset = read_dataset(tmp_path)
    assert dataset.vocabulary.names == ("Table", "Airplane, toy", "Tortoise")
    assert [Path(str(dataset[i].image)).stem for i in range(len(dataset))] == ["000a1249af2bc5f0", "111c5d2d5d5e5c5b"]
    first = dataset[0].instances
    np.testing.assert_allclose(first.boxes_xyxy_px, [[10, 1, 20, 9], [0, 5, 40, 10]])
    assert first.class_ids.tolist() == [1, 0]
    assert first.is_crowd.tolist() == [False, True]
    assert not dataset[1].instances.is_crowd.any(), "-1 says that nobody judged it"
    assert dataset[0].absent_class_ids is None
    assert dataset[0].source == "train-annotations-bbox.csv: image 000a1249af2bc5f0"


def test_verified_labels_say_what_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, classes=CLASSES + "/m/084zz,Whale\n")
    (tmp_path / "train-annotations-human-imagelabels-boxable.csv").write_text(VERIFIED)
    dataset = read_openimages(path)
    assert [sample.absent_class_ids for sample in dataset.samples] == [{2}, frozenset(), {0}]
    assert [len(sample.instances) for sample in dataset.samples] == [2, 1, 0]


def test_a_list_of_images_adds_those_without_boxes(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "train-images.csv").write_text("ImageID,Subset\n222c5d2d5d5e5c5b,train\n")
    assert len(read_openimages(path)) == 3


@pytest.mark.parametrize("images", ["images", ".", "train", "images/train"])
def test_images_are_found_where_people_put_them(tmp_path: Path, images: str) -> None:
    assert len(read_openimages(write(tmp_path, images=images))) == 2


def test_images_that_were_not_downloaded_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "images" / "111c5d2d5d5e5c5b.jpg").unlink()
    with pytest.warns(UserWarning, match="left out 1 of 2 images, which are not there"):
        assert len(read_openimages(path)) == 1
    with pytest.raises(DataError, match=r"none of its 2 images found, the first is '000a1249af2bc5f0'; looked in"):
        read_openimages(path, images=tmp_path / "elsewhere")


def test_headed_descriptions_and_none(tmp_path: Path) -> None:
    path = write(tmp_path, classes="LabelName,DisplayName\n" + CLASSES)
    assert len(read_openimages(path).vocabulary) == 3
    (tmp_path / "class-descriptions-boxable.csv").unlink()
    with pytest.raises(DataError, match=r"labels such as '/m/04bcr3' need names; put class-descriptions.csv"):
        read_openimages(path)
    plain = write(tmp_path, BOXES.replace("/m/0cmf2", "plane").replace("/m/04bcr3", "table"), classes=None)
    assert read_openimages(plain).vocabulary.names == ("plane", "table")


FAULTS = {
    "column": ({"header": HEADER.replace("XMin", "Left")}, "has no column XMin"),
    "text": ({"boxes": BOXES.replace("0.25,", "left,")}, r"line 2: XMin must be a share .* got 'left'"),
    "pixels": ({"boxes": BOXES.replace("0.75,", "30,")}, r"line 4: XMax must be a share .* got '30'"),
    "nan": ({"boxes": BOXES.replace("0.75,", "nan,")}, "line 4: XMax must be a share"),
    "label": ({"boxes": BOXES.replace("/m/04bcr3", "/m/x")}, "line 3: label '/m/x' is not among the 3"),
    "short": ({"boxes": BOXES + "abc,xclick\n"}, "line 5: has not 13 values"),
    "long": ({"boxes": BOXES.replace("1,0,0,0\n", "1,0,0,0,7\n")}, "line 2: has not 13 values"),
    "classes": ({"classes": CLASSES + "/m/04bcr3,Desk\n"}, "line 4: expected a label of its own"),
    "names": ({"classes": CLASSES + "/m/9,Table\n"}, r"\['Table'\] occur more than once"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_clear_line(tmp_path: Path, name: str) -> None:
    change, message = FAULTS[name]
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(write(tmp_path, **change))
    assert "\n" not in str(caught.value)
    assert ".csv" in str(caught.value)
