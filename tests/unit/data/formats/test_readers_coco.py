"""COCO JSON: what tools write is read; what cannot be used is one line that says where and why."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats import read_dataset
from deixis.data.formats.coco.read import read_coco
from deixis.data.pixels.images import load
from deixis.errors import DataError
from deixis.records import Instances

HEIGHT, WIDTH = 30, 50


def content() -> dict[str, Any]:
    """Two images, the second without annotations; two categories with far-apart ids."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 3, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [
            {"id": 30, "image_id": 7, "category_id": 90, "bbox": [1, 2, 10, 20], "area": 120, "iscrowd": 0},
            {"id": 31, "image_id": 7, "category_id": 4, "bbox": [20, 0, 5, 6]},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 4, "name": "cat"}, {"id": 5, "name": "zebra"}],
    }


def write(folder: Path, labels: Any, where: str = "labels.json", images: str = ".") -> Path:
    """The labels, and a picture for each file name in them."""
    (folder / images).mkdir(parents=True, exist_ok=True)
    for row in labels["images"] if isinstance(labels, dict) else ():
        if isinstance(row, dict) and isinstance(row.get("file_name"), str):
            (folder / images / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (WIDTH, HEIGHT)).save(folder / images / row["file_name"])
    path = folder / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(labels))
    return path


def instances_of(folder: Path, **annotation: Any) -> Instances:
    """The first image's objects when its first annotation is changed."""
    labels = content()
    labels["annotations"][0].update(annotation)
    return read_coco(write(folder, labels))[0].instances


def test_a_plain_file(tmp_path: Path) -> None:
    dataset = read_coco(write(tmp_path, content()))
    assert dataset.vocabulary.names == ("dog", "cat", "zebra")
    assert dataset.vocabulary.category_ids == (90, 4, 5)
    assert dataset.name == "labels"
    first, second = dataset[0], dataset[1]
    assert (first.image_id, second.image_id) == (7, 3)
    assert first.image == tmp_path / "a.png"
    assert first.size_hw == (HEIGHT, WIDTH)
    assert first.source == "labels.json: image 7"
    np.testing.assert_array_equal(first.instances.boxes_xyxy_px, [[1, 2, 11, 22], [20, 0, 25, 6]])
    assert first.instances.class_ids.tolist() == [0, 1]
    np.testing.assert_array_equal(first.instances.areas_px, [120, 30])  # the box's own where none is given
    assert not first.instances.is_crowd.any()
    assert first.instances.masks_rle is None
    assert len(second.instances) == 0


def test_no_annotations_at_all(tmp_path: Path) -> None:
    dataset = read_coco(write(tmp_path, content() | {"annotations": []}))
    assert [len(dataset[i].instances) for i in range(2)] == [0, 0]


def test_crowd_is_flagged(tmp_path: Path) -> None:
    assert instances_of(tmp_path, iscrowd=1).is_crowd.tolist() == [True, False]


def test_masks_from_polygons_and_rle(tmp_path: Path) -> None:
    bitmap = np.zeros((HEIGHT, WIDTH), np.uint8)
    bitmap[5:20, 10:12] = 1
    runs = [10 * HEIGHT + 5, 15, HEIGHT - 15, 15, WIDTH * HEIGHT - 11 * HEIGHT - 20]
    packed = coco_mask.encode(np.asfortranarray(bitmap))["counts"].decode()
    labels = content()
    labels["annotations"] = [
        {"id": i, "image_id": 7, "category_id": 4, "bbox": [10, 5, 2, 15], "segmentation": segmentation}
        for i, segmentation in enumerate(
            [
                [[10, 5, 12, 5, 12, 20, 10, 20]],
                [[10, 5, 12, 5, 12, 12, 10, 12], [10, 12, 12, 12, 12, 20, 10, 20]],
                {"size": [HEIGHT, WIDTH], "counts": runs},
                {"size": [HEIGHT, WIDTH], "counts": packed},
            ]
        )
    ]
    masks = read_coco(write(tmp_path, labels))[0].instances.masks_rle
    assert masks is not None
    for mask in masks:
        np.testing.assert_array_equal(coco_mask.decode(mask), bitmap)
    assert read_coco(tmp_path / "labels.json", masks=False)[0].instances.masks_rle is None


@pytest.mark.parametrize("seed", range(5))
def test_compressed_rle_is_read_as_pycocotools_wrote_it(tmp_path: Path, seed: int) -> None:
    share = [0.5, 0.05, 0.001, 0.0, 1.0][seed]
    bitmap = (np.random.default_rng(seed).random((HEIGHT, WIDTH)) < share).astype(np.uint8)
    packed = coco_mask.encode(np.asfortranarray(bitmap))["counts"].decode()
    labels = annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": packed})
    labels["annotations"].pop(0)
    (mask,) = read_coco(write(tmp_path, labels))[0].instances.masks_rle or ()
    np.testing.assert_array_equal(coco_mask.decode(mask), bitmap)


@pytest.mark.parametrize("segmentation", [[], None, [[1, 2, 3, 4]]])
def test_masks_are_left_out_where_an_object_has_none(tmp_path: Path, segmentation: Any) -> None:
    """Four numbers are no polygon, though pycocotools would read them as a box."""
    labels = content()
    labels["annotations"][0]["segmentation"] = segmentation
    labels["annotations"][1]["segmentation"] = [[1, 1, 5, 1, 5, 5]]
    assert read_coco(write(tmp_path, labels))[0].instances.masks_rle is None


def test_boxes_are_clipped_and_those_without_area_dropped_with_a_count(tmp_path: Path) -> None:
    labels = content()
    boxes = [[-5, -5, 20, 20], [40, 20, 100, 100], [5, 5, 0, 10], [5, 5, 10, -3], [60, 5, 10, 10]]
    labels["annotations"] = [{"id": i, "image_id": 7, "category_id": 4, "bbox": box} for i, box in enumerate(boxes)]
    path = write(tmp_path, labels)
    with pytest.warns(UserWarning, match=r"dropped 3 boxes .* the first in labels.json: image 7"):
        dataset = read_coco(path)
    np.testing.assert_array_equal(dataset[0].instances.boxes_xyxy_px, [[0, 0, 15, 15], [40, 20, 50, 30]])


def test_text_ids(tmp_path: Path) -> None:
    labels = content()
    labels["images"][0]["id"] = labels["annotations"][0]["image_id"] = labels["annotations"][1]["image_id"] = "12"
    dataset = read_coco(write(tmp_path, labels))
    assert (dataset[0].image_id, dataset[1].image_id) == (12, 3)
    labels["images"][0]["id"] = labels["annotations"][0]["image_id"] = labels["annotations"][1]["image_id"] = "u-1"
    with pytest.warns(UserWarning, match="image ids are not whole numbers"):
        dataset = read_coco(write(tmp_path, labels))
    assert (dataset[0].image_id, dataset[1].image_id) == (1, 2)
    assert len(dataset[0].instances) == 2


def test_categories_named_by_numbers(tmp_path: Path) -> None:
    labels = content()
    labels["categories"][0]["name"] = 7
    assert "7" in read_coco(write(tmp_path, labels)).vocabulary.names


def test_an_unused_category_that_repeats_a_used_name_is_left_out(tmp_path: Path) -> None:
    labels = content()
    labels["categories"].insert(0, {"id": 0, "name": "Cat", "supercategory": "none"})
    path = write(tmp_path, labels)
    with pytest.warns(UserWarning, match="unused, and named as a used one"):
        dataset = read_coco(path)
    assert dataset.vocabulary.names == ("dog", "cat", "zebra")
    assert dataset[0].instances.class_ids.tolist() == [0, 1]


def test_a_missing_size_is_read_from_the_file(tmp_path: Path) -> None:
    labels = content()
    del labels["images"][1]["height"]
    labels["images"][0]["width"] = None
    dataset = read_coco(write(tmp_path, labels))
    assert [dataset[i].size_hw for i in range(2)] == [(HEIGHT, WIDTH)] * 2


@pytest.mark.parametrize(
    ("where", "images"),
    [
        ("labels.json", "."),
        ("labels.json", "images"),
        ("labels.json", "labels"),
        ("instances_val.json", "val"),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
        ("annotations/labels.json", "images"),
    ],
)
def test_images_are_found_where_tools_put_them(tmp_path: Path, where: str, images: str) -> None:
    dataset = read_coco(write(tmp_path, content(), where, images))
    assert Path(str(dataset[0].image)).samefile(tmp_path / images / "a.png")


def test_images_in_a_folder_given(tmp_path: Path) -> None:
    write(tmp_path, content(), images="else/where")
    (tmp_path / "else" / "where").rename(tmp_path / "moved")
    dataset = read_dataset(tmp_path / "labels.json", images=tmp_path / "moved")
    assert dataset[0].image == tmp_path / "moved" / "a.png"


def test_file_names_with_folders(tmp_path: Path) -> None:
    labels = content()
    labels["images"][0]["file_name"] = "train/a.png"
    path = write(tmp_path, labels)
    assert read_coco(path)[0].image == tmp_path / "train" / "a.png"
    labels["images"][0]["file_name"] = "train\\a.png"
    path.write_text(json.dumps(labels))
    assert read_coco(path)[0].image == tmp_path / "train" / "a.png"
    labels["images"][0]["file_name"] = "C:\\data\\c.png"
    path.write_text(json.dumps(labels))
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "c.png")
    with pytest.warns(UserWarning, match="1 images found without the folders in their names"):
        assert read_coco(path)[0].image == tmp_path / "c.png"
    labels["images"][0]["file_name"] = "C:\\data\\b.png"  # the other entry's file
    path.write_text(json.dumps(labels))
    with pytest.raises(DataError, match="are found as one file"):
        read_coco(path)


def test_missing_images_are_counted_before_anything_else(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 image files not found, the first is 'b.png'.*--images"):
        read_coco(path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"2 of 2 image files not found, the first is 'a.png'"):
        read_coco(path)
    with pytest.raises(DataError, match="nowhere"):
        read_coco(path, images=tmp_path / "nowhere")


def edit(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    labels = content()
    change(labels)
    return labels


def annotation(**changes: Any) -> dict[str, Any]:
    return edit(lambda labels: labels["annotations"][1].update(changes))


FAULTS: dict[str, tuple[Any, str]] = {
    "category": (annotation(category_id=9), r"annotation 31: category_id 9 not in categories \[90, 4, 5\]"),
    "unhashable": (annotation(category_id=[4]), r"annotation 31: category_id \[4\] not in"),
    "image": (annotation(image_id=8), "annotation 31: image_id 8 not among the 2 images"),
    "three": (annotation(bbox=[1, 2, 3]), r"annotation 31: bbox must be four finite numbers .* got \[1, 2, 3\]"),
    "text": (annotation(bbox=[1, 2, 3, "four"]), "annotation 31: bbox must be"),
    "nan": (annotation(bbox=[1, 2, float("nan"), 4]), "annotation 31: bbox must be"),
    "infinite": (annotation(bbox=[1, 2, float("inf"), 4]), "annotation 31: bbox must be"),
    "huge": (annotation(bbox=[1, 2, 10**400, 4]), "annotation 31: bbox must be"),
    "true": (annotation(bbox=[True, 2, 3, 4]), "annotation 31: bbox must be"),
    "no bbox": (edit(lambda x: x["annotations"][1].pop("bbox")), "annotation 31: has no bbox"),
    "no ids": (
        edit(lambda x: (x["annotations"][1].pop("image_id"), x["annotations"][1].pop("id"))),
        "annotation number 2: has no image_id",
    ),
    "segmentation": (annotation(segmentation="polygon"), "annotation 31: segmentation is neither"),
    "rle size": (annotation(segmentation={"size": [3, 3], "counts": [9]}), "has size .* its image is .30, 50."),
    "rle counts": (annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": [9]}), "counts for 9 pixels"),
    "rle text": (annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": ["a"]}), "neither RLE text nor whole"),
    "rle junk": (
        annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": "oooo"}),
        "segmentation has counts that end in",
    ),
    "rle short": (annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": "0T2"}), "counts for 68 pixels"),
    "rle accent": (
        annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": "é"}),
        "segmentation has 'é' in its counts",
    ),
    "polygon": (annotation(segmentation=[[1, 2, "x", 4, 5, 6]]), "no finite numbers"),
    "deep polygon": (annotation(segmentation=[[[[[1, 2, 3, 4, 5, 6]]]]]), "not a list"),
    "double image": (edit(lambda x: x["images"].append(x["images"][0])), "image id 7 occurs more than once"),
    "double category": (edit(lambda x: x["categories"].append({"id": 4, "name": "fox"})), "category id 4 occurs more"),
    "double name": (
        edit(lambda x: x["categories"].append({"id": 8, "name": "zebra"})),
        "class names must differ, .'zebra'. occur more than once",
    ),
    "blank name": (edit(lambda x: x["categories"][0].update(name=" ")), "must not be blank"),
    "no name": (edit(lambda x: x["categories"][0].pop("name")), "category 90 has no name"),
    "no image id": (edit(lambda x: x["images"][1].pop("id")), "image number 2 has no usable id"),
    "no file name": (edit(lambda x: x["images"][1].update(file_name=5)), "image 3 has no file_name"),
    "bad size": (
        edit(lambda x: x["images"][1].update(height=0)),
        r"image 3: image size \(height, width\) must be positive, .* got \(0, 50\)",
    ),
    "no images": (edit(lambda x: x.update(images=[], annotations=[])), "'images' is empty"),
    "no categories": (edit(lambda x: x.update(categories=[], annotations=[])), "'categories' is empty"),
    "key missing": (edit(lambda x: x.pop("annotations")), "no list of objects under 'annotations'"),
    "not objects": (edit(lambda x: x.update(annotations=[1])), "no list of objects under 'annotations'"),
    "a list": ([1, 2], "holds a list"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_clear_line(tmp_path: Path, name: str) -> None:
    labels, message = FAULTS[name]
    path = write(tmp_path, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=message) as caught:
            read_coco(path)
    assert "\n" not in str(caught.value)
    assert "labels.json" in str(caught.value)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    labels = content()
    labels["annotations"] += [{"id": i, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]} for i in range(50, 60)]
    with pytest.raises(DataError, match=r"annotation 50: .*annotation 52: .*; and 7 more faults; correct or remove"):
        read_coco(write(tmp_path, labels))


@pytest.mark.parametrize("text", ["", "{", '{"images": [}', "\x00\x01", "[" * 100_000])
def test_malformed_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(DataError, match="malformed JSON") as caught:
        read_dataset(tmp_path / "labels.json")
    assert "\n" not in str(caught.value)


def test_not_text_and_not_there(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="no UTF-8 text"):
        read_coco(tmp_path / "labels.json")
    with pytest.raises(DataError, match="not found"):
        read_coco(tmp_path / "other.json")
    with pytest.raises(DataError, match="expected one COCO JSON file in it, found none"):
        read_coco(tmp_path)


def test_formats_are_recognised(tmp_path: Path) -> None:
    write(tmp_path, content())
    assert len(read_dataset(tmp_path)) == 2  # a folder with one JSON file
    assert len(read_dataset(str(tmp_path / "labels.json"), format="coco")) == 2
    with pytest.raises(DataError, match=r"unknown format 'yolov5'; choose one of voc, yolo_obb, yolo, .*odvg"):
        read_dataset(tmp_path, format="yolov5")
    (tmp_path / "notes.json").write_text("{}")  # stands beside many exports
    assert len(read_dataset(tmp_path)) == 2
    (tmp_path / "more.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"expected one COCO JSON file in it, found labels.json, more.json"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        read_dataset(tmp_path / "absent")
    (tmp_path / "labels.txt").touch()
    with pytest.raises(DataError, match=r"labels.txt: no annotations of a known format"):
        read_dataset(tmp_path / "labels.txt")


def test_generated_scenes_by_a_line_of_text() -> None:
    dataset = read_dataset("scenes:split=demo_train,count=3,seed=1")
    assert len(dataset) == 3
    assert len(dataset[0].instances) > 0
    assert len(read_dataset(Path("scenes:split=demo_train"))) == 200


@pytest.mark.parametrize(
    "text",
    [
        "scenes:",
        "scenes:count=3",
        "scenes:split=demo_train,colour=red",
        "scenes:split=demo_train,count=x",
        "scenes:split=demo_train,count=0",
        "scenes:split=demo_train,count=-3",
        "scenes:split=nonsense,count=3",
    ],
)
def test_scenes_that_cannot_be_generated(text: str) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "images", "objects", "crowds", "without"),
    [
        ("instances_coco_tiny_train2017", 19, 165, 1, 0),
        ("instances_tiny_coco_train", 11, 67, 0, 2),
        ("instances_tiny_coco_val", 2, 26, 0, 0),
    ],
)
def test_real_files(shared_data: Path, name: str, images: int, objects: int, crowds: int, without: int) -> None:
    dataset = read_dataset(shared_data / "coco_cc_instances" / f"{name}.json")
    samples = [dataset[i] for i in range(len(dataset))]
    assert len(samples) == images
    assert len(dataset.vocabulary) == 80
    assert sum(len(sample.instances) for sample in samples) == objects
    assert sum(int(sample.instances.is_crowd.sum()) for sample in samples) == crowds
    assert sum(len(sample.instances) == 0 for sample in samples) == without
    for sample in samples:
        load(sample)
        masks = sample.instances.masks_rle
        if masks:  # masks are where their boxes are
            boxes = coco_mask.toBbox(list(masks))
            boxes[:, 2:] += boxes[:, :2]
            assert np.abs(boxes - sample.instances.boxes_xyxy_px).max() < 3


def test_names_in_other_case_and_without_suffix(tmp_path: Path) -> None:
    labels = content()
    path = write(tmp_path, labels, images="images")
    labels["images"][0]["file_name"], labels["images"][1]["file_name"] = "IMAGES/A.PNG", "b"
    path.write_text(json.dumps(labels))
    assert [sample.image for sample in read_coco(path)] == [
        tmp_path / "images" / "a.png",
        tmp_path / "images" / "b.png",
    ]
    labels["images"][0]["file_name"] = "B.PNG"  # the other entry's file
    path.write_text(json.dumps(labels))
    with pytest.raises(DataError, match="are found as one file"):
        read_coco(path)


def test_a_name_that_may_be_several_files_is_not_guessed(tmp_path: Path) -> None:
    labels = content()
    path = write(tmp_path, labels, images="images")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "b.jpg")
    labels["images"][1]["file_name"] = "b"
    path.write_text(json.dumps(labels))
    with pytest.raises(DataError, match=r"'b' may be .*b.jpg or b.png"):
        read_coco(path)


def test_a_converted_picture_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    (tmp_path / "b.png").rename(tmp_path / "b.jpg")
    with pytest.raises(DataError, match=r"first is 'b.png'.*b.jpg is there: correct the names"):
        read_coco(path)


@pytest.mark.parametrize("bbox", ["1, 2, 10, 20", "[1,2,10,20]", ["1", "2", "10.0", "20"]])
def test_numbers_may_be_text(tmp_path: Path, bbox: Any) -> None:
    labels = content()
    labels["annotations"][0] |= {"bbox": bbox, "area": "120"}
    labels["images"][0] |= {"height": str(HEIGHT), "width": str(WIDTH)}
    first = read_coco(write(tmp_path, labels))[0]
    assert first.size_hw == (HEIGHT, WIDTH)
    np.testing.assert_equal(first.instances.boxes_xyxy_px[0], [1, 2, 11, 22])
    assert first.instances.areas_px[0] == 120


@pytest.mark.parametrize("bbox", ["1,2,10", "1,2,10,x", "", ["1", "2", "10", "x"]])
def test_text_that_is_no_box_is_refused(tmp_path: Path, bbox: Any) -> None:
    with pytest.raises(DataError, match="annotation 30: bbox must be four finite numbers"):
        instances_of(tmp_path, bbox=bbox)


def test_a_pipe_is_no_picture_and_is_not_waited_for(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    (tmp_path / "b.png").unlink()
    os.mkfifo(tmp_path / "B.PNG")
    with pytest.raises(DataError, match=r"1 of 2 image files not found, the first is 'b.png'"):
        read_coco(path)
