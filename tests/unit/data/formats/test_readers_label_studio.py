"""Label Studio's exports: regions in percent, brushes, which annotations count, image names; and what is written."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.findings import Findings
from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.label_studio.brush import decode_brush, encode_brush
from deixis.data.formats.writing import write_dataset
from deixis.errors import DataError
from deixis.records import Dataset, Instances, Sample, SampleList, Vocabulary

WIDTH, HEIGHT = 60, 40
RECOGNISED = {
    "label_studio": {
        "project-1.json": json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": []}]}])
    },
    "label_studio min": {"min.json": json.dumps([{"image": "a.jpg", "label": [{"rectanglelabels": ["x"]}]}])},
    "label_studio task": {"1.json": json.dumps({"id": 1, "data": {"image": "a"}, "annotations": [{"result": []}]})},
}


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)


def region(value: dict[str, Any], kind: str = "rectanglelabels", **more: Any) -> dict[str, Any]:
    labelled = value if any(key.endswith("labels") for key in value) else {**value, kind: ["cat"]}
    return {"type": kind, "original_width": WIDTH, "original_height": HEIGHT, "value": labelled, **more}


RECTANGLE = {"x": 50, "y": 25, "width": 25, "height": 50, "rotation": 0}
BOX = [30.0, 10.0, 45.0, 30.0]


def task(*regions: dict[str, Any], number: int = 1, image: str = "/data/upload/1/1a2b3c4d-a.png", **more: Any) -> Any:
    annotations = more.pop("annotations", [{"id": 1, "result": list(regions)}])
    return {"id": number, "data": {"image": image}, "annotations": annotations, "predictions": [], **more}


def write(folder: Path, content: Any, name: str = "images/a.png") -> Path:
    picture(folder / name)
    (folder / "project.json").write_text(json.dumps(content))
    return folder / "project.json"


def quietly(path: Path, **options: Any) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return read_dataset(path, **options)


def boxes(dataset: Dataset, index: int = 0) -> list[list[float]]:
    return dataset[index].instances.boxes_xyxy_px.round(6).tolist()  # type: ignore[no-any-return]


def test_rectangles_are_percent_of_the_image(tmp_path: Path) -> None:
    file = write(tmp_path, [task(region(RECTANGLE))])
    assert format_of(file) == format_of(tmp_path) == "label_studio"
    assert boxes(quietly(tmp_path)) == [BOX]
    two = region({**RECTANGLE, "rectanglelabels": ["dog", "cat"]})
    dataset = quietly(write(tmp_path, [task(two)]))
    assert dataset.vocabulary.names == ("cat", "dog")
    assert boxes(dataset) == [BOX, BOX], "one object for each label"


def test_a_turned_rectangle_turns_about_its_corner_in_pixels(tmp_path: Path) -> None:
    objects = quietly(write(tmp_path, [task(region({**RECTANGLE, "rotation": 90}))]))[0].instances
    np.testing.assert_allclose(objects.boxes_xyxy_px, [[10, 10, 30, 25]])
    assert coco_mask.decode(objects.masks_rle[0])[10:25, 10:30].all()
    np.testing.assert_allclose(objects.areas_px, [300])


def test_polygons_ellipses_and_brushes(tmp_path: Path) -> None:
    bitmap = np.zeros((HEIGHT, WIDTH), np.uint8)
    bitmap[3:9, 5:8] = 1
    regions = [
        region({"points": [[10, 10], [50, 10], [50, 60]], "closed": True}, "polygonlabels"),
        region({"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 90}, "ellipselabels"),
        region({"format": "rle", "rle": encode_brush(bitmap)}, "brushlabels"),
        region({"format": "rle", "rle": encode_brush(bitmap * 0)}, "brushlabels"),
    ]
    file = write(tmp_path, [task(*regions)])
    objects = quietly(file)[0].instances
    np.testing.assert_allclose(objects.boxes_xyxy_px, [[6, 4, 30, 24], [22, 14, 38, 26], [5, 3, 8, 9]])
    np.testing.assert_array_equal(coco_mask.decode(objects.masks_rle[2]), bitmap)
    assert quietly(file, masks=False)[0].instances.masks_rle is None


def test_brushes_come_back_bit_for_bit() -> None:
    random = np.random.default_rng(0)
    for size_hw, share in (((1, 1), 0.0), ((1, 1), 1.0), ((7, 5), 0.5), ((300, 400), 0.001), ((300, 400), 1.0)):
        bitmap = (random.random(size_hw) < share).astype(np.uint8)
        np.testing.assert_array_equal(decode_brush(encode_brush(bitmap), size_hw), bitmap)


def test_a_brush_with_values_one_by_one() -> None:
    """Two pixels, 8 bits each value, counts of 3 bits: a block of 7 single values, then one repeated value."""
    values = [0, 0, 0, 9, 7, 7, 7]
    bits = (
        f"{8:032b}{7:05b}" + "0010" * 4 + "000" + f"{6:03b}" + "".join(f"{v:08b}" for v in values) + "100000" + "0" * 8
    )
    bits += "0" * (-len(bits) % 8)
    data = list(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    assert decode_brush(data, (1, 2)).tolist() == [[1, 0]]
    with pytest.raises(ValueError, match="ends too early"):
        decode_brush(data[:-2], (1, 2))
    with pytest.raises(ValueError, match="brush of 2 pixels, its image has 3x1"):
        decode_brush(data, (1, 3))


def test_which_annotations_count(tmp_path: Path) -> None:
    early, late = region(RECTANGLE), region({**RECTANGLE, "width": 10})
    annotations = [
        {"id": 1, "result": [early], "created_at": "2024-01-01", "ground_truth": True},
        {"id": 2, "result": [late], "created_at": "2024-02-01"},
        {"id": 3, "result": [late, late], "created_at": "2024-03-01", "was_cancelled": True},
    ]
    content = [
        task(annotations=annotations),
        task(number=2, annotations=[], predictions=[{"result": [early], "score": 0.9}]),
        task(number=3, annotations=[{"result": [early], "was_cancelled": True}]),
    ]
    with pytest.warns(UserWarning, match="left out|several") as said:
        dataset = read_dataset(write(tmp_path, content))
    assert len(dataset) == 1
    assert boxes(dataset) == [BOX]
    texts = " ".join(str(one.message) for one in said)
    assert "1 tasks that were cancelled, 1 tasks without an annotation" in texts
    assert "1 tasks have several annotations" in texts
    annotations[0]["ground_truth"] = False
    with pytest.warns(UserWarning, match="several annotations"):
        assert boxes(read_dataset(write(tmp_path, [task(annotations=annotations)])))[0][2] == 36, "the latest"
    annotations[0].pop("created_at")
    for found in (annotations[:2], annotations[1::-1]):
        with pytest.warns(UserWarning, match="several annotations"):
            assert boxes(read_dataset(write(tmp_path, [task(annotations=found)])))[0][2] == 36, "one with a date"


def test_an_annotation_without_regions_is_an_image_without_objects(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "b.png")
    dataset = quietly(write(tmp_path, [task(region(RECTANGLE)), task(number=2, image="b.png")]))
    assert [len(dataset[i].instances) for i in range(2)] == [1, 0]


def test_the_short_form(tmp_path: Path) -> None:
    value = {**RECTANGLE, "rectanglelabels": ["cat"], "original_width": WIDTH, "original_height": HEIGHT}
    row = {"image": "/data/upload/1/1a2b3c4d-a.png", "id": 1, "label": [value], "annotator": 1, "lead_time": 3.5}
    early = {**row, "label": [], "updated_at": "2024-01-01"}
    file = write(tmp_path, [row])
    assert boxes(quietly(file)) == [BOX]
    with pytest.warns(UserWarning, match="1 tasks have several annotations"):
        assert boxes(read_dataset(write(tmp_path, [{**row, "updated_at": "2024-02-01"}, early]))) == [BOX]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("/data/upload/1/1a2b3c4d-a.png", "1a2b3c4d-a.png"),
        ("/data/upload/1/1a2b3c4d-a.png", "images/a.png"),
        ("/data/local-files/?d=shots/a%20b.png", "shots/a b.png"),
        ("https://bucket.example/x/a.png?token=1", "images/a.png"),
        ("s3://bucket/x/a.png", "images/a.png"),
    ],
)
def test_images_are_found_by_the_names_of_servers(tmp_path: Path, name: str, file: str) -> None:
    dataset = quietly(write(tmp_path, [task(region(RECTANGLE), image=name)], file))
    assert dataset[0].image == tmp_path / file


def test_several_images_of_a_task(tmp_path: Path) -> None:
    one = task(region(RECTANGLE, item_index=1))
    one["data"] = {"images": ["a.png", "b.png"]}
    picture(tmp_path / "images" / "b.png")
    dataset = quietly(write(tmp_path, [one]))
    assert [len(dataset[i].instances) for i in range(2)] == [0, 1]


def test_folders_of_tasks_and_names_of_the_configuration(tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "b.png"), start=1):
        picture(tmp_path / name)
        (tmp_path / f"{number}.json").write_text(json.dumps(task(region(RECTANGLE), number=number, image=name)))
    (tmp_path / "config.xml").write_text(
        '<View><RectangleLabels><Label value="dog"/><Label value="cat"/></RectangleLabels></View>'
    )
    dataset = quietly(tmp_path)
    assert len(dataset) == 2
    assert dataset.vocabulary.names == ("dog", "cat")


WRONG = [
    ([task(region({**RECTANGLE, "x": "50"}))], r"task 1: region 1: has no number 'x', got '50'"),
    ([task(region(RECTANGLE, image_rotation=90))], "turned by 90 degrees"),
    ([task(region({"rle": [1, 2, 3]}, "brushlabels"))], "ends too early"),
    ([task(region({"rle": [999]}, "brushlabels"))], "no list of bytes"),
    ([task(region({"points": [[1, 2], [3, 4]]}, "polygonlabels"))], "polygon needs three points or more, got 2"),
    ([task(region(RECTANGLE), image="a.mp4")], "annotates a video"),
    ([task({"type": "videorectangle", "value": {"labels": ["cat"], "sequence": []}})], "annotates a video"),
    ([task(region(RECTANGLE), image="c.png")], r"1 of 1 image files not found, the first is 'c\.png'"),
    ([task(annotations=[])], "without an annotated image: 1 tasks without an annotation"),
]


@pytest.mark.parametrize(("content", "said"), WRONG)
def test_what_cannot_be_read_is_an_error(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_dataset(write(tmp_path, content))


def test_findings_leave_out_one_region(tmp_path: Path) -> None:
    findings = Findings()
    file = write(tmp_path, [task(region({**RECTANGLE, "x": None}), region(RECTANGLE))])
    assert boxes(read_dataset(file, findings=findings)) == [BOX]
    assert [one.kind for one in findings.found] == ["record_malformed"]


def test_regions_of_other_kinds_are_counted(tmp_path: Path) -> None:
    point = {"type": "keypointlabels", "value": {"x": 1, "y": 2, "width": 1, "keypointlabels": ["nose"]}}
    with pytest.warns(UserWarning, match="left out 1 regions of type keypointlabels"):
        assert boxes(read_dataset(write(tmp_path, [task(point, region(RECTANGLE))]))) == [BOX]


def test_predictions_are_written_with_score_and_version(tmp_path: Path) -> None:
    vocabulary = Vocabulary(("dog", "cat"))
    objects = replace(Instances.build([[5, 6, 20, 30]], [1]), scores=np.array([0.75]))
    sample = Sample(np.zeros((HEIGHT, WIDTH, 3), np.uint8), (HEIGHT, WIDTH), objects, vocabulary, 1, model_version="v7")
    written = write_dataset(SampleList((sample,), vocabulary), tmp_path / "out", "label_studio")
    (row,) = json.loads(written.read_text())
    assert "annotations" not in row
    (prediction,) = row["predictions"]
    assert prediction["model_version"] == "v7"
    assert prediction["result"][0]["score"] == 0.75
    assert 'value="dog"' in (tmp_path / "out" / "label_config.xml").read_text()
    read = quietly(tmp_path / "out")
    assert read.vocabulary.names == ("dog", "cat")
    assert read[0].instances.scores.tolist() == [0.75]
    assert read[0].model_version == "v7"


def test_annotations_with_their_tasks_as_storages_hold_them(tmp_path: Path) -> None:
    """A file per annotation, the task inside."""
    value = {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        Image.new("RGB", (60, 40)).save(tmp_path / "images" / f"{number}.png")
        region = {"type": "rectanglelabels", "original_width": 60, "original_height": 40, "value": value}
        task = {"id": number, "data": {"image": f"s3://bucket/{number}.png"}}
        row = {"id": 10 + number, "result": [region], "was_cancelled": number == 2, "task": task}
        (tmp_path / f"{number}.json").write_text(json.dumps(row))
    assert format_of(tmp_path) == "label_studio"
    with pytest.warns(UserWarning, match=r"left out 1 tasks that were cancelled"):
        dataset = read_dataset(tmp_path)
    assert dataset[0].instances.boxes_xyxy_px.tolist() == [[6, 4, 36, 24]]
