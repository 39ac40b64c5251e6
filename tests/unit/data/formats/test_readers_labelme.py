"""labelme: every kind of shape, the image beside or inside, and the real set."""

from __future__ import annotations

import base64
import json
import math
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats import read_dataset
from deixis.data.formats.labelme.read import read_labelme
from deixis.data.pixels.images import load
from deixis.data.sets.embedded import EmbeddedDataset
from deixis.errors import DataError
from deixis.records import Sample

WIDTH, HEIGHT = 40, 10


def png(colour: tuple[int, int, int] = (1, 2, 3), size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(points: Any, kind: str | None = "polygon", label: str = "fig", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


BOX = shape([[30, 8], [10, 2]], "rectangle")


def content(*shapes: Any, **more: Any) -> dict[str, Any]:
    head = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "a.jpg", "imageData": None}
    return {**head, "imageHeight": HEIGHT, "imageWidth": WIDTH, **more}


def write(folder: Path, labels: Any, name: str = "a.json", image: str | None = "a.jpg") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(labels))
    if image is not None:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / image)
    return folder


def only(folder: Path, *shapes: Any, masks: bool = True) -> Sample:
    return read_labelme(write(folder, content(*shapes)), masks=masks)[0]


def test_a_rectangle_by_any_two_corners_or_all_four(tmp_path: Path) -> None:
    four = shape([[10, 2], [30, 2], [30, 8], [10, 8]], "rectangle")
    sample = only(tmp_path, BOX, four)
    np.testing.assert_array_equal(sample.instances.boxes_xyxy_px, [[10, 2, 30, 8]] * 2)
    np.testing.assert_array_equal(sample.instances.areas_px, [120, 120])
    assert sample.instances.masks_rle is None
    assert (sample.source, sample.image_id, sample.size_hw) == ("a.json", 1, (HEIGHT, WIDTH))


@pytest.mark.parametrize("kind", ["polygon", None])
def test_a_polygon(tmp_path: Path, kind: str | None) -> None:
    triangle = shape([[10, 2], [30, 2], [10.5, 8]], kind)
    sample = only(tmp_path, triangle)
    np.testing.assert_array_equal(sample.instances.boxes_xyxy_px, [[10, 2, 30, 8]])
    np.testing.assert_array_equal(sample.instances.areas_px, [60])
    assert sample.instances.masks_rle is not None
    assert abs(int(coco_mask.area(sample.instances.masks_rle[0])) - 60) < 12
    assert only(tmp_path, triangle, masks=False).instances.masks_rle is None


def test_a_circle(tmp_path: Path) -> None:
    sample = only(tmp_path, shape([[20, 5], [20, 9]], "circle"))
    np.testing.assert_allclose(sample.instances.boxes_xyxy_px, [[16, 1, 24, 9]])
    np.testing.assert_allclose(sample.instances.areas_px, [16 * math.pi])
    assert sample.instances.masks_rle is not None
    bitmap = coco_mask.decode(sample.instances.masks_rle[0])
    assert bitmap[5, 17:23].all()
    assert not bitmap[:, :15].any()


def test_a_mask(tmp_path: Path) -> None:
    bitmap = np.array([[255, 0, 255], [0, 0, 255]], np.uint8)
    file = BytesIO()
    Image.fromarray(bitmap).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    sample = only(tmp_path, shape([[30, 4], [32, 5]], "mask", mask=text))
    np.testing.assert_array_equal(sample.instances.boxes_xyxy_px, [[30, 4, 33, 6]])
    assert sample.instances.masks_rle is not None
    np.testing.assert_array_equal(coco_mask.decode(sample.instances.masks_rle[0])[4:6, 30:33], bitmap > 0)


def test_shapes_of_newer_tools_with_corners(tmp_path: Path) -> None:
    turned = [[20, 1], [24, 5], [20, 9], [16, 5]]
    front, back = [[10, 2], [16, 2], [16, 7], [10, 7]], [[12, 1], [18, 1], [18, 6], [12, 6]]
    kinds = ("rotation", "oriented_rectangle", "quadrilateral")
    sample = only(tmp_path, *(shape(turned, kind) for kind in kinds), shape([*front, *back], "cuboid"))
    np.testing.assert_array_equal(sample.instances.boxes_xyxy_px, [[16, 1, 24, 9]] * 3 + [[10, 1, 18, 7]])
    np.testing.assert_array_equal(sample.instances.areas_px, [32, 32, 32, 46])
    assert sample.instances.masks_rle is not None
    with pytest.warns(UserWarning, match=r"left out 1 shapes that enclose nothing"):
        assert len(only(tmp_path, shape([[1, 1], [2, 2], [3, 1]], "linestrip"), BOX).instances) == 1


def test_parts_of_a_group_are_one_object(tmp_path: Path) -> None:
    left, right = [[0, 0], [4, 0], [4, 4], [0, 4]], [[8, 0], [12, 0], [12, 4], [8, 4]]
    sample = only(tmp_path, shape(left, group_id=1), shape(right, group_id=1), shape(right, group_id=1, label="nut"))
    np.testing.assert_array_equal(sample.instances.boxes_xyxy_px, [[0, 0, 12, 4], [8, 0, 12, 4]])
    np.testing.assert_array_equal(sample.instances.areas_px, [32, 16])
    assert sample.instances.masks_rle is not None
    assert int(coco_mask.area(sample.instances.masks_rle[0])) == 32


@pytest.mark.parametrize(("kind", "masks"), [("polygon", True), ("polygon", False), ("rectangle", True)])
def test_parts_that_overlap_count_once(tmp_path: Path, kind: str, masks: bool) -> None:
    points = [[2, 2], [6, 2], [6, 6], [2, 6]]
    parts = [shape(points, kind, group_id=1) for _ in range(3)]
    (area,) = only(tmp_path, *parts, masks=masks).instances.areas_px
    assert area == 16


def test_points_and_lines_enclose_nothing(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"left out 2 shapes that enclose nothing, the first in .*a.json: shape 1"):
        sample = only(tmp_path, shape([[1, 1]], "point"), BOX, shape([[1, 1], [2, 2]], "line"))
    assert len(sample.instances) == 1


def test_crowds_are_flagged(tmp_path: Path) -> None:
    assert only(tmp_path, BOX, {**BOX, "flags": {"crowd": True}}).instances.is_crowd.tolist() == [False, True]


def test_labels_come_from_the_list_or_are_sorted(tmp_path: Path) -> None:
    write(tmp_path, content(BOX, {**BOX, "label": "date"}))
    assert read_labelme(tmp_path).vocabulary.names == ("date", "fig")
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nwalnut\nfig\ndate\n")
    dataset = read_labelme(tmp_path)
    assert dataset.vocabulary.names == ("walnut", "fig", "date")
    assert dataset[0].instances.class_ids.tolist() == [1, 2]
    (tmp_path / "labels.txt").write_text("fig\n")
    with pytest.raises(DataError, match=r"a.json: labels \['date'\] are not in labels.txt"):
        read_labelme(tmp_path)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.json", "a.jpg"),
        ("annotations/a.json", "images/a.jpg"),
        ("images/a.json", "images/a.jpg"),
        ("a.json", "A.PNG"),
    ],
)
def test_images_are_found_where_people_put_them(tmp_path: Path, name: str, image: str) -> None:
    dataset = read_dataset(write(tmp_path, content(BOX), name, image))
    assert Path(str(dataset[0].image)) == tmp_path / image
    load(dataset[0])


def test_an_absent_image_is_taken_out_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, content(BOX, imageData=png((9, 8, 7))), image=None)
    write(tmp_path, content(BOX, imagePath="b.jpg", imageData=png()), "b.json", "b.jpg")
    dataset = read_dataset(tmp_path)
    assert isinstance(dataset, EmbeddedDataset)
    dataset = pickle.loads(pickle.dumps(dataset))  # noqa: S301  as loading workers get it
    pixels = dataset[0].image
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels[0, 0].tolist() == [9, 8, 7]
    assert dataset[1].image == tmp_path / "b.jpg"


def test_a_single_file(tmp_path: Path) -> None:
    write(tmp_path, content(BOX))
    assert len(read_dataset(tmp_path / "a.json")) == 1


FAULTS: dict[str, tuple[Any, str]] = {
    "no shapes": (content(shapes={}), "a.json: has no list 'shapes'"),
    "no label": (content({**BOX, "label": " "}), "shape 1: has no label"),
    "kind": (content(BOX, {**BOX, "shape_type": "blob"}), "shape 2: shape_type 'blob' is not one of polygon"),
    "points": (content({**BOX, "points": [1, 2]}), r"shape 1: points must be a list of \[x, y\]"),
    "nan": (content({**BOX, "points": [[1, 2], [3, None]]}), "shape 1: points must be finite numbers"),
    "two": (content(shape([[1, 2], [3, 4]])), "shape 1: a polygon needs three points or more, got 2"),
    "corner": (content(shape([[1, 2]], "rectangle")), "shape 1: a rectangle needs two opposite corners"),
    "circle": (content(shape([[1, 2]], "circle")), "shape 1: a circle needs its centre and a point"),
    "mask": (content(shape([[1, 2], [3, 4]], "mask", mask="!")), "shape 1: mask is no PNG"),
    "mask place": (content(shape([[39, 2], [40, 4]], "mask", mask=png())), "shape 1: a mask of .* reaches outside"),
    "size": (content(BOX, imageWidth=HEIGHT, imageHeight=WIDTH), "states 10x40 pixels .* but a.jpg has 40x10"),
    "path": (content(BOX, imagePath=5), "imagePath must be a file name, got 5"),
    "empty": (content(), "none of its 1 files has an object"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_clear_line(tmp_path: Path, name: str) -> None:
    labels, message = FAULTS[name]
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(write(tmp_path, labels), format="labelme")
    assert "\n" not in str(caught.value)


def test_faults_of_embedded_images(tmp_path: Path) -> None:
    write(tmp_path, content(BOX), image=None)
    with pytest.raises(DataError, match=r"1 of 1 image files not found, the first is 'a.jpg'"):
        read_labelme(tmp_path)
    write(tmp_path, content(BOX, imageData="*"), image=None)
    with pytest.raises(DataError, match=r"a.json: imageData is no base64"):
        read_labelme(tmp_path)
    write(tmp_path, content(BOX, imageData=base64.b64encode(b"no image").decode()), image=None)
    with pytest.raises(DataError, match=r"a.json: imageData: cannot decode image \(cannot identify image file\)"):
        read_labelme(tmp_path)
    write(tmp_path, content(BOX, imageData=png(size=(HEIGHT, WIDTH))), image=None)
    with pytest.raises(DataError, match=r"states 40x10 pixels .* but imageData has 10x40"):
        read_labelme(tmp_path)
    (tmp_path / "a.json").write_text('{"shapes": [}')
    with pytest.raises(DataError, match=r"a.json: malformed JSON"):
        read_labelme(tmp_path / "a.json")


def test_the_real_set(shared_data: Path) -> None:
    dataset = read_dataset(shared_data / "fruits_nuts_labelme")
    assert len(dataset) == 18
    assert dataset.vocabulary.names == ("date", "fig", "hazelnut")
    ids = np.concatenate([dataset[i].instances.class_ids for i in range(18)])
    assert np.bincount(ids).tolist() == [71, 41, 53]
    for i in range(0, 18, 6):
        sample = load(dataset[i])
        assert sample.instances.masks_rle is not None
        boxes = coco_mask.toBbox(list(sample.instances.masks_rle))
        boxes[:, 2:] += boxes[:, :2]
        assert np.abs(boxes - sample.instances.boxes_xyxy_px).max() < 1.5
        np.testing.assert_allclose(
            coco_mask.area(list(sample.instances.masks_rle)), sample.instances.areas_px, rtol=0.02
        )
