"""Annotations as exporters write them, and the files of tools that are not read."""

from __future__ import annotations

import json
import unicodedata
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deixis.data.formats import read_dataset
from deixis.data.pixels.image_files import kind_of_content, unread_pictures
from deixis.data.pixels.images import load_image
from deixis.errors import DataError
from deixis.records import Dataset

WIDTH, HEIGHT = 60, 40


def picture(path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), "teal").save(path, **options)
    return path


def coco(folder: Path, names: list[str], boxes: list[Any] | None = None, **parts: Any) -> Path:
    boxes = [[5, 6, 20, 10]] * len(names) if boxes is None else boxes
    content = {
        "images": [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)],
        "categories": [{"id": 1, "name": "cat"}],
    } | parts
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


def boxes_of(dataset: Dataset) -> list[list[float]]:
    return [np.round(dataset[i].instances.boxes_xyxy_px, 3).tolist() for i in range(len(dataset))]


def quietly(path: Path, **options: Any) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return read_dataset(path, **options)


# Names


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a%20b%2Bc.png", "images/a b+c.png"),
        ("100%25.png", "images/100%.png"),
        (unicodedata.normalize("NFD", "été.png"), "images/" + unicodedata.normalize("NFC", "été.png")),
        (unicodedata.normalize("NFC", "été.png"), "images/" + unicodedata.normalize("NFD", "été.png")),
        ("photos/%C3%A9.png", "images/photos/é.png"),
        ("a.png", "data/a.png"),
        ("images/a.png", "images/a.png"),
        ("/data/local-files/?d=images/a.png", "images/a.png"),
        ("images/a.png?token=1", "images/a.png"),
    ],
)
def test_names_are_found_in_any_spelling(tmp_path: Path, name: str, file: str) -> None:
    picture(tmp_path / file)
    assert quietly(coco(tmp_path, [name]))[0].image == tmp_path / file


def test_a_name_as_it_stands_wins_over_its_decoded_spelling(tmp_path: Path) -> None:
    picture(tmp_path / "a%20b.png")
    picture(tmp_path / "a b.png")
    assert quietly(coco(tmp_path, ["a%20b.png"]))[0].image == tmp_path / "a%20b.png"


def test_an_exporters_folders_are_dropped_with_a_warning(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "x" / "a.png")
    with pytest.warns(UserWarning, match="1 images found without the folders in their names, as 'upload/4/x/a.png'"):
        dataset = read_dataset(coco(tmp_path, ["upload/4/x/a.png"]), tmp_path / "images")
    assert dataset[0].image == tmp_path / "images" / "x" / "a.png"


def test_two_entries_are_never_one_file(tmp_path: Path) -> None:
    picture(tmp_path / "flat" / "0.png")
    path = coco(tmp_path, ["a/0.png", "b/0.png"])
    with pytest.raises(DataError, match=r"2 of 2 images are not where their names point: 'a/0\.png' and 'b"):
        read_dataset(path, tmp_path / "flat")
    picture(tmp_path / "flat" / "a" / "0.png")
    with pytest.warns(UserWarning, match="1 images found without"):  # now they are two
        assert len({sample.image for sample in read_dataset(path, tmp_path / "flat")}) == 2  # type: ignore[attr-defined]


def test_a_picture_of_the_same_name_in_another_folder_does_not_stand_in(tmp_path: Path) -> None:
    for folder in ("cam_a", "cam_b"):
        picture(tmp_path / folder / "0.png")
    with pytest.raises(DataError, match=r"'cam_b/0.png' is .*cam_b/0.png, which is not in .*cam_a"):
        read_dataset(coco(tmp_path, ["cam_b/0.png"]), tmp_path / "cam_a")
    assert quietly(coco(tmp_path, ["cam_b/0.png"]), images=tmp_path / "cam_b")[0].image == tmp_path / "cam_b" / "0.png"


# Ids, categories, boxes


@pytest.mark.parametrize("listed", [7, "7", 7.0])
@pytest.mark.parametrize("asked", [7, "7", " 7", 7.0, "7.0"])
def test_ids_are_one_in_all_spellings(tmp_path: Path, listed: Any, asked: Any) -> None:
    picture(tmp_path / "a.png")
    path = coco(
        tmp_path,
        ["a.png"],
        images=[{"id": listed, "file_name": "a.png"}],
        categories=[{"id": listed, "name": "cat"}],
        annotations=[{"id": 1, "image_id": asked, "category_id": asked, "bbox": [1, 2, 3, 4]}],
    )
    assert boxes_of(quietly(path)) == [[[1, 2, 4, 6]]]


def test_ids_that_differ_in_zeros_stay_apart(tmp_path: Path) -> None:
    names = ["a.png", "b.png"]
    for name in names:
        picture(tmp_path / name)
    path = coco(
        tmp_path,
        names,
        images=[{"id": "7", "file_name": "a.png"}, {"id": "07", "file_name": "b.png"}],
        annotations=[{"id": 1, "image_id": "07", "category_id": 1, "bbox": [1, 2, 3, 4]}],
    )
    with pytest.warns(UserWarning, match="ids are not whole numbers"):
        assert [len(boxes) for boxes in boxes_of(read_dataset(path))] == [0, 1]


@pytest.mark.parametrize("parent", ["none", "", None])
def test_a_root_category_is_left_out(tmp_path: Path, parent: str | None) -> None:
    picture(tmp_path / "a.png")
    root = {"id": 0, "name": "pets", "supercategory": parent}
    path = coco(tmp_path, ["a.png"], categories=[root, {"id": 1, "name": "cat", "supercategory": "pets"}])
    with pytest.warns(UserWarning, match="left out the category 'pets'"):
        assert read_dataset(path).vocabulary.names == ("cat",)
    with_object = [{"id": 1, "image_id": 0, "category_id": 0, "bbox": [1, 2, 3, 4]}]
    path = coco(tmp_path, ["a.png"], categories=[root, {"id": 1, "name": "cat"}], annotations=with_object)
    assert quietly(path).vocabulary.names == ("pets", "cat")


POLYGON = [10.0, 5.0, 30.0, 5.0, 30.0, 25.0]
BOX = [10.0, 5.0, 30.0, 25.0]


@pytest.mark.parametrize(
    "segmentation",
    [
        POLYGON,
        [POLYGON],
        [[POLYGON]],
        [[10.0, 5.0], [30.0, 5.0], [30.0, 25.0]],
        [[[10.0, 5.0], [30.0, 5.0], [30.0, 25.0]]],
    ],
)
@pytest.mark.parametrize("bbox", [None, [], "absent"])
def test_polygons_of_any_depth_give_masks_and_missing_boxes(tmp_path: Path, segmentation: Any, bbox: Any) -> None:
    picture(tmp_path / "a.png")
    row = {"id": 1, "image_id": 0, "category_id": 1, "segmentation": segmentation}
    if bbox != "absent":
        row["bbox"] = bbox
    path = coco(tmp_path, ["a.png"], annotations=[row])
    for masks in (True, False):
        dataset = quietly(path, masks=masks)
        assert boxes_of(dataset) == [[BOX]]
        assert (dataset[0].instances.masks_rle is not None) == masks


def test_a_mask_that_cannot_be_read_stops_no_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [["x"]]}
    path = coco(tmp_path, ["a.png"], annotations=[row])
    assert boxes_of(quietly(path, masks=False)) == [[[1, 2, 4, 6]]]
    with pytest.raises(DataError, match="no finite numbers"):
        read_dataset(path)


BOXES = {
    "sizes": ([[5, 6, 20, 10], [40, 30, 20, 10]], None),
    "corners": ([[20, 10, 40, 30], [40, 20, 60, 40]], r"corners \[x1, y1, x2, y2\]: as \[x, y, width"),
    "shares": ([[0.25, 0.25, 0.2, 0.25], [0.75, 0.5, 0.1, 0.5]], r"shares of the image, \[x, y, width"),
    "shares as corners": ([[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 1, 1]], "shares of the image, corners"),
    "one box outside": ([[5, 6, 20, 10], [50, 30, 20, 10]], None),
}
RIGHT = {
    "sizes": [[[5, 6, 25, 16]], [[40, 30, 60, 40]]],
    "corners": [[[20, 10, 40, 30]], [[40, 20, 60, 40]]],
    "shares": [[[15, 10, 27, 20]], [[45, 20, 51, 40]]],
    "shares as corners": [[[15, 10, 30, 20]], [[30, 20, 60, 40]]],
    "one box outside": [[[5, 6, 25, 16]], [[50, 30, 60, 40]]],
}


@pytest.mark.parametrize("kind", BOXES)
def test_boxes_are_read_as_they_are_written(tmp_path: Path, kind: str) -> None:
    boxes, said = BOXES[kind]
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    path = coco(tmp_path, ["a.png", "b.png"], boxes)
    if said is None:
        assert boxes_of(quietly(path)) == RIGHT[kind]
        return
    with pytest.warns(UserWarning, match=said):
        assert boxes_of(read_dataset(path)) == RIGHT[kind]


def test_shares_that_may_be_both_stop(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="shares of the image from 0 to 1, not pixels"):
        read_dataset(coco(tmp_path, ["a.png"], [[0.1, 0.1, 0.2, 0.3]]))


# YOLO


def yolo(folder: Path, labels: dict[str, str], yaml: str = "train: images\nnames: [cat, dog]\n") -> Path:
    for name, text in labels.items():
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        (folder / "labels" / f"{name}.txt").write_text(text)
    (folder / "data.yaml").write_text(yaml)
    return folder / "data.yaml"


def test_label_files_of_no_picture_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    path = yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2", "b": "0 0.5 0.5 0.2 0.2", "readme": "how it was made"})
    (tmp_path / "labels" / "._a.txt").write_bytes(b"\0\5\26\7")
    with pytest.warns(UserWarning, match=r"1 label files belong to no image: b.txt; restore or rename"):
        assert len(read_dataset(path)) == 1


def test_label_files_beside_pictures_are_matched_too(tmp_path: Path) -> None:
    picture(tmp_path / "all" / "a.png")
    for name in ("a", "b", "classes"):
        (tmp_path / "all" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.warns(UserWarning, match="belong to no image: b.txt;"):
        read_dataset(yolo(tmp_path, {}, "train: all\nnames: [cat]\n"))


def test_pictures_that_are_not_read_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "b.avif")
    for name in ("c.HEIC", "d.mp4", "e.dng", "f.jp2", "notes.txt", "._g.heic"):
        (tmp_path / "images" / name).write_bytes(b"")
    path = yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2", "b": "1 0.5 0.5 0.2 0.2"})
    with pytest.warns(UserWarning, match=r"1 \.dng file is left out.*1 \.heic file.*1 \.jp2 file.*1 \.mp4 file"):
        dataset = read_dataset(path)
    assert [len(boxes) for boxes in boxes_of(dataset)] == [1, 1]
    assert load_image(tmp_path / "images" / "b.avif").shape == (HEIGHT, WIDTH, 3)


POSES = {
    "three numbers, visible 2": "0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.6 0.6 2 0.5 0.5 0 0.5 0.6 1",
    "three numbers, visible 1 or 0": "0 0.5 0.5 0.4 0.4 0.4 0.4 1 0.6 0.6 0 0.5 0.5 1 0.5 0.6 1",
    "two numbers": "0 0.5 0.5 0.4 0.4 0.4 0.4 0.6 0.6 0.5 0.45\n0 0.3 0.3 0.2 0.2 0.3 0.3 0.25 0.25 0.35 0.35",
    "odd count": "0 0.5 0.5 0.4 0.4 0.4 0.4 2",
}


@pytest.mark.parametrize("kind", POSES)
def test_poses_are_not_taken_for_polygons(tmp_path: Path, kind: str) -> None:
    picture(tmp_path / "images" / "a.png")
    path = yolo(tmp_path, {"a": POSES[kind]})
    with pytest.raises(DataError, match="kpt_shape"):
        read_dataset(path)
    shape = "[4, 3]" if "three" in kind else "[3, 2]"
    path.write_text(path.read_text() + f"kpt_shape: {shape}\n")
    assert all(len(boxes) for boxes in boxes_of(quietly(path)))


def test_polygons_are_still_polygons(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    path = yolo(tmp_path, {"a": "0 0.25 0.25 0.75 0.25 0.75 0.75\n1 0 0 1 0 1.005 1 0 1\n0 0.1 0.1 0.9 0.1 0.5 0.9"})
    assert len(quietly(path)[0].instances) == 3


@pytest.mark.parametrize(
    "names", ["[yes, no, 1.10, 2020-01-01, on, null]", "{0: yes, 1: no, 2: 1.10, 3: 2020-01-01, 4: on, 5: null}"]
)
def test_names_in_yaml_stay_words(tmp_path: Path, names: str) -> None:
    picture(tmp_path / "images" / "a.png")
    path = yolo(tmp_path, {"a": "2 0.5 0.5 0.2 0.2"}, f"train: images\nval: null\nnc: 6\nnames: {names}\n")
    assert quietly(path).vocabulary.names == ("yes", "no", "1.10", "2020-01-01", "on", "null")


def test_a_split_that_is_not_there_matters_only_when_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    yaml = "train: images\nval: ../absent/images\ntest:\nnames: [cat]\n"
    path = yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2"}, yaml)
    assert len(quietly(path)) == 1  # the only one that is there
    with pytest.raises(DataError, match=r"no file or folder .*absent/images"):
        read_dataset(path, split="val")


def test_lists_lose_an_archives_own_folders(tmp_path: Path) -> None:
    picture(tmp_path / "obj_train_data" / "a b.png")
    (tmp_path / "obj_train_data" / "a b.txt").write_text("0 0.5 0.5 0.2 0.2")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a%20b.png\n")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: train.txt\nnames: [cat]\n")
    assert len(quietly(tmp_path / "data.yaml")[0].instances) == 1


# macOS


def test_files_that_macos_leaves_are_skipped(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    coco(tmp_path, ["a.png"])
    for name in ("._labels.json", "._a.png", "._x.xml", "._b.csv", "._data.yaml", "._c.parquet"):
        (tmp_path / name).write_bytes(b"\0\5\26\7\0\2\0\0names:")
    picture(tmp_path / "__MACOSX" / "a.png")
    assert len(quietly(tmp_path)) == 1


# Other tools


FOREIGN: dict[str, tuple[str, Any, str]] = {
    "results": ("results.json", [{"image_id": 1, "category_id": 1, "bbox": [], "score": 1}], "COCO results"),
    "labelbox": ("export.json", [{"Labeled Data": "x", "Label": {}}], "Labelbox"),
    "bdd": ("bdd.json", [{"name": "a", "labels": [{"box2d": {}}]}], "BDD100K"),
    "cvat": ("annotations.xml", "<annotations><image id='0'></image></annotations>", "CVAT for images"),
    "cvat video": ("annotations.xml", "<annotations><track id='0'></track></annotations>", "CVAT for video"),
    "dlib": ("boxes.xml", "<dataset><images><image file='a'><box top='1'/></image></images></dataset>", "dlib"),
    "tfod": ("labels.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n", "has no row of an image"),
    "wheat": ("train.csv", "image_id,width,height,bbox,source\n", "has no row of an image"),
    "kaggle masks": ("train.csv", "ImageId,EncodedPixels\n", "columns ImageId, EncodedPixels"),
    "hf": ("metadata.jsonl", '{"file_name": "a.jpg", "text": "a cat"}\n', "Hugging Face ImageFolder without objects"),
    "kitti": ("000001.txt", "Car 0 0 -1.5 587 173 614 200 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n", "KITTI"),
    "dota": ("P0001.txt", "10.0 10.0 20.0 10.0 20.0 20.0 10.0 20.0 plane 0\n", "DOTA"),
    "mot": ("gt.txt", "1,1,912,484,97,109,0,7,1\n", "MOT"),
    "wider": ("wider_face_train.txt", "0--Parade/a.jpg\n1\n449 330 122 149 0 0 0 0 0 0\n", "WIDER"),
    "record": ("train.tfrecord", "x", "TFRecord"),
    "visdrone": ("0000001_02999_d_0000005.txt", "684,8,273,116,0,0,0,0\n", "MOT or VisDrone"),
    "yolo without names": ("a.txt", "0 0.5 0.5 0.25 0.5\n", "without class names; put a list of them"),
    "scalabel": ("labels.json", {"frames": [{"name": "a.jpg", "labels": []}], "config": {}}, "Scalabel"),
    "cityscapes": ("a_polygons.json", {"imgHeight": 1, "imgWidth": 1, "objects": []}, "Cityscapes"),
    "darwin": ("a.json", {"version": "2.0", "item": {"name": "a.jpg"}, "annotations": []}, "V7 Darwin"),
    "superannotate": ("a.jpg.json", {"metadata": {"name": "a.jpg"}, "instances": []}, "SuperAnnotate"),
    "labelbox lines": ("export.ndjson", '{"data_row": {"external_id": "a.jpg"}, "projects": {}}\n', "Labelbox"),
    "sagemaker": ("output.manifest", '{"source-ref": "s3://b/a.jpg", "job": {}}\n', "SageMaker Ground Truth"),
    "azure ml": ("a.jsonl", '{"image_url": "a.jpg", "label": [{"topX": 0.1}]}\n', "Azure Machine Learning"),
    "azure custom vision": ("a.json", [{"id": "1", "regions": [{"tagName": "cat"}]}], "Azure Custom Vision"),
    "vott": ("export.json", {"assets": {}, "tags": []}, "VoTT file"),
    "openlabel": ("a.json", {"openlabel": {"metadata": {}}}, "OpenLABEL"),
    "encord": ("a.json", [{"label_hash": "x", "data_hash": "y"}], "Encord"),
    "scale": ("a.json", [{"task_id": "x", "response": {}}], "Scale AI"),
    "nuimages": ("object_ann.json", [{"token": "x", "bbox": [1, 2, 3, 4]}], "nuImages"),
    "unity": ("step0.frame_data.json", {"frame": 0, "captures": []}, "Unity's Perception"),
    "crowdhuman": ("annotation_val.odgt", '{"ID": "a", "gtboxes": []}\n', "CrowdHuman"),
    "kili": ("a.json", [{"externalId": "a", "jsonResponse": {}}], "Kili"),
    "prodigy": ("a.jsonl", '{"image": "a.jpg", "spans": []}\n', "Prodigy"),
}  # fmt: skip


@pytest.mark.parametrize("tool", FOREIGN)
def test_files_of_other_tools_are_named(tmp_path: Path, tool: str) -> None:
    name, content, said = FOREIGN[tool]
    picture(tmp_path / "a.jpg")
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    for place in (tmp_path / name, tmp_path):
        with pytest.raises(DataError, match=said) as caught:
            read_dataset(place)
        assert "remove" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_folder_without_annotations_of_any_tool_lists_what_it_holds(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "package.json").write_text('{"name": "x"}')
    with pytest.raises(DataError, match=r"it holds 1 .jpg, 1 .json"):
        read_dataset(tmp_path)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", "{}")


CONTENTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "zip": (zipped, "is a ZIP archive; unpack it"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08\0"), "is a gzip archive"),
    "html": (lambda path: path.write_text("<!DOCTYPE html><html>404"), "is an HTML page"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "Git LFS pointer"),
    "video": (lambda path: path.write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0"), "is a video"),
    "heic": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0"), "is a HEIC picture"),
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("name", ["annotations.json", "annotations.xml", "data.yaml", "boxes.csv", "lines.jsonl"])
def test_what_a_file_truly_is_is_said(tmp_path: Path, kind: str, name: str) -> None:
    make, said = CONTENTS[kind]
    make(tmp_path / name)
    with pytest.raises(DataError, match=said):
        read_dataset(tmp_path / name)


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_a_picture_truly_is_is_said(tmp_path: Path, kind: str) -> None:
    make, said = CONTENTS[kind]
    make(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=said):
        load_image(tmp_path / "a.jpg")


def test_pictures_are_no_other_thing() -> None:
    assert kind_of_content(b"\xff\xd8\xff\xe0") is None
    assert kind_of_content(b"\0\0\0\x1cftypavif") is None
    assert kind_of_content(b"RIFF\0\0\0\0WEBP") is None
    assert unread_pictures([Path("a.jpg"), Path("b.txt")]) == ""


@pytest.mark.parametrize("kind", ["rotation", "oriented_rectangle", "rotated_rectangle"])
def test_rotated_shapes_of_labelme_are_their_corners(tmp_path: Path, kind: str) -> None:
    picture(tmp_path / "a.png")
    points = [[20, 5], [35, 20], [20, 35], [5, 20]]
    shapes = [{"label": "cat", "shape_type": kind, "points": points, "direction": 0.785}]
    content = {"version": "5", "imagePath": "a.png", "imageData": None, "shapes": shapes}
    (tmp_path / "a.json").write_text(json.dumps(content))
    dataset = quietly(tmp_path)
    assert boxes_of(dataset) == [[[5, 5, 35, 35]]]
    assert dataset[0].instances.masks_rle is not None
