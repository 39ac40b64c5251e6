"""YOLO: folders as Ultralytics, Roboflow and others lay them out; faults name file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml as yaml_lib
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats import read_dataset
from deixis.data.formats.writing import write_parts
from deixis.data.formats.yolo.read import read_yolo
from deixis.errors import DataError

WIDTH, HEIGHT = 40, 10  # long: swapped sides would show
NAMES = "names: [cat, hot dog]\n"


def write(
    folder: Path,
    labels: str | None,
    yaml: str = "train: images/train\n" + NAMES,
    image: str = "images/train/a.jpg",
    text: str = "labels/train/a.txt",
) -> Path:
    for name in (image, text):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / image)
    if labels is not None:
        (folder / text).write_text(labels)
    (folder / "data.yaml").write_text(yaml)
    return folder / "data.yaml"


def test_boxes(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, "1 0.5 0.5 0.25 0.8\n\n0 0.125 0.25 0.25 0.5\n"))
    assert dataset.vocabulary.names == ("cat", "hot dog")
    sample = dataset[0]
    np.testing.assert_allclose(sample.instances.boxes_xyxy_px, [[15, 1, 25, 9], [0, 0, 10, 5]])
    assert sample.instances.class_ids.tolist() == [1, 0]
    assert sample.instances.masks_rle is None
    assert (sample.size_hw, sample.image_id, sample.source) == ((HEIGHT, WIDTH), 1, "a.txt")


def test_polygons_are_masks_and_their_bounds_boxes(tmp_path: Path) -> None:
    sample = read_yolo(write(tmp_path, "0 0.25 0.2 0.5 0.2 0.5 0.8 0.25 0.8"))[0]
    np.testing.assert_allclose(sample.instances.boxes_xyxy_px, [[10, 2, 20, 8]])
    np.testing.assert_allclose(sample.instances.areas_px, [60])
    assert sample.instances.masks_rle is not None
    bitmap = coco_mask.decode(sample.instances.masks_rle[0])
    assert bitmap[2:8, 10:20].all()
    assert bitmap.sum() == 60
    assert read_yolo(tmp_path, masks=False)[0].instances.masks_rle is None


def test_a_box_among_polygons_leaves_the_image_without_masks(tmp_path: Path) -> None:
    sample = read_yolo(write(tmp_path, "0 0.2 0.2 0.5 0.2 0.5 0.8\n1 0.5 0.5 0.25 0.8"))[0]
    assert len(sample.instances) == 2
    assert sample.instances.masks_rle is None


@pytest.mark.parametrize("labels", ["", None])
def test_images_without_objects_are_kept(tmp_path: Path, labels: str | None) -> None:
    write(tmp_path, "0 0.5 0.5 0.5 0.5", image="images/train/b.jpg", text="labels/train/b.txt")
    dataset = read_yolo(write(tmp_path, labels))
    assert [len(sample.instances) for sample in dataset.samples] == [0, 1]


def test_keypoints_leave_their_box(tmp_path: Path) -> None:
    yaml = "train: images/train\nkpt_shape: [2, 3]\n" + NAMES
    sample = read_yolo(write(tmp_path, "0 0.5 0.5 0.25 0.8 0.1 0.1 2 0.2 0.2 1", yaml))[0]
    np.testing.assert_allclose(sample.instances.boxes_xyxy_px, [[15, 1, 25, 9]])


@pytest.mark.parametrize(
    "names", ["names:\n  0: cat\n  1: hot dog\n", "names:\n  '1': hot dog\n  '0': cat\nnc: 2\n", "nc: 2\n" + NAMES]
)
def test_names_as_list_or_mapping(tmp_path: Path, names: str) -> None:
    dataset = read_yolo(write(tmp_path, "1 0.5 0.5 0.5 0.5", "train: images/train\n" + names))
    assert dataset.vocabulary.names == ("cat", "hot dog")


@pytest.mark.parametrize(
    ("yaml", "image", "text"),
    [
        ("train: images/train\n", "images/train/a.jpg", "labels/train/a.txt"),
        ("train: ../train/images\n", "train/images/a.jpg", "train/labels/a.txt"),  # Roboflow
        ("path: ../coco8\ntrain: images/train\n", "images/train/a.jpg", "labels/train/a.txt"),
        ("path: sub\ntrain: images\n", "sub/images/a.jpg", "sub/labels/a.txt"),
        ("train: [images/x, images/y]\n", "images/y/a.jpg", "labels/y/a.txt"),
        ("train: images\n", "images/deep/a.jpg", "labels/deep/a.txt"),
        ("train: list.txt\n", "images/a.jpg", "labels/a.txt"),
        ("train: pictures\n", "pictures/a.jpg", "pictures/a.txt"),
    ],
)
def test_images_are_found_where_tools_put_them(tmp_path: Path, yaml: str, image: str, text: str) -> None:
    (tmp_path / "images" / "x").mkdir(parents=True)
    (tmp_path / "list.txt").write_text("./images/a.jpg\n\n")
    dataset = read_yolo(write(tmp_path, "1 0.5 0.5 0.5 0.5", yaml + NAMES, image, text))
    assert Path(str(dataset[0].image)).samefile(tmp_path / image)
    assert len(dataset[0].instances) == 1


def test_splits_are_named(tmp_path: Path) -> None:
    yaml = "train: images/train\nval: images/val\n" + NAMES
    write(tmp_path, "0 0.5 0.5 0.5 0.5", yaml)
    write(tmp_path, "0 0.5 0.5 0.5 0.5\n" * 2, yaml, "images/val/a.jpg", "labels/val/a.txt")
    assert len(read_dataset(f"{tmp_path}/data.yaml#val")[0].instances) == 2
    assert len(read_dataset(f"{tmp_path}/data.yaml#valid")[0].instances) == 2
    assert len(read_dataset(tmp_path, split="train")[0].instances) == 1
    with pytest.raises(DataError, match=r"has the splits train, val; name one, as in .*data.yaml#train"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"has no split 'test', only train, val"):
        read_dataset(tmp_path, split="test")


def test_images_in_a_folder_given(tmp_path: Path) -> None:
    write(tmp_path, "1 0.5 0.5 0.5 0.5", image="else/images/b.jpg", text="else/labels/b.txt")
    (tmp_path / "images" / "train").mkdir(parents=True)
    dataset = read_dataset(tmp_path, images=tmp_path / "else" / "images")
    assert [Path(str(sample.image)).name for sample in dataset.samples] == ["b.jpg"]


FAULTS = {
    "words": ("0 0.5 0.5 x 0.5", r"a.txt: line 1: expected numbers, got '0 0.5 0.5 x 0.5'"),
    "three": ("0 0.5 0.5 0.5", "a.txt: line 1: expected a class and 4 numbers .* got 3"),
    "confidence": ("\n0 0.5 0.5 0.5 0.5 0.9", "a.txt: line 2: expected a class and 4 numbers .* got 5"),
    "class": ("2 0.5 0.5 0.5 0.5", "a.txt: line 1: class 2 is not one of the 2 names of data.yaml"),
    "negative": ("-1 0.5 0.5 0.5 0.5", "class -1 is not one of"),
    "half": ("0.5 0.5 0.5 0.5 0.5", "class 0.5 is not one of"),
    "pixels": ("0 20 5 10 8", r"a.txt: line 1: numbers must be shares .* got \[20.0.*pixels\? divide"),
    "nan": ("0 nan 0.5 0.5 0.5", "numbers must be shares"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_in_labels_are_one_clear_line(tmp_path: Path, name: str) -> None:
    labels, message = FAULTS[name]
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(write(tmp_path, labels))
    assert "\n" not in str(caught.value)


YAML_FAULTS = {
    "malformed": ("names: [", "cannot be read as YAML"),
    "a list": ("- names: x", "holds a list"),
    "no names": ("train: images/train\nnames:\n", "names must be a list"),
    "gap": ("train: images/train\nnames: {0: a, 2: b}\n", "numbered from 0"),
    "count": ("train: images/train\nnc: 3\n" + NAMES, "nc is 3 but names has 2"),
    "double": ("train: images/train\nnames: [a, a]\n", r"\['a'\] occur more than once"),
    "no split": (NAMES, "has no train, val or test"),
    "absent": ("train: images/absent\n" + NAMES, "no file or folder 'images/absent'"),
    "number": ("train: [[5]]\n" + NAMES, "train must be a path"),
    "path": ("path: [5]\ntrain: images/train\n" + NAMES, "path must be a folder"),
    "empty": ("train: labels\n" + NAMES, "no image for its split 'train'"),
}


@pytest.mark.parametrize("name", YAML_FAULTS)
def test_faults_in_the_yaml_are_one_clear_line(tmp_path: Path, name: str) -> None:
    yaml, message = YAML_FAULTS[name]
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(write(tmp_path, "0 0.5 0.5 0.5 0.5", yaml))
    assert "\n" not in str(caught.value)


def test_labels_that_are_all_absent_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 1 images has a label file; the first would be .*labels/train/a.txt"):
        read_dataset(write(tmp_path, None))


@pytest.mark.parametrize("parts", [("train",), ("val",), ("train", "test"), ("train", "val", "test")])
@pytest.mark.parametrize("format", ["yolo", "yolo_obb"])
def test_what_is_written_has_the_keys_that_ultralytics_needs(
    tmp_path: Path, format: str, parts: tuple[str, ...]
) -> None:
    dataset = read_dataset(write(tmp_path / "in", "1 0.5 0.5 0.25 0.8"))
    written = write_parts(dict.fromkeys(parts, dataset), tmp_path / "out", format)
    content = yaml_lib.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert "path" not in content, "Ultralytics takes an existing path, as '.' is, as the folder that it runs in"
    for key in ("train", "val", *parts):
        assert (tmp_path / "out" / content[key]).is_dir()
    assert all(len(read_dataset(place)) == 1 for place in written.values())
    assert all(content[part] == f"images/{part}" for part in parts)


def test_val_that_repeats_train_is_no_split_to_name(tmp_path: Path) -> None:
    yaml = "path: .\ntrain: images/train\nval: images/train\n" + NAMES
    path = write(tmp_path, "1 0.5 0.5 0.25 0.8", yaml)
    assert len(read_dataset(path)) == len(read_dataset(f"{path}#val")) == 1
