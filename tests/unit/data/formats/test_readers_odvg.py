"""ODVG lines: detection and grounding, phrases with several boxes, boxes with several phrases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deixis.data.formats import read_dataset
from deixis.data.formats.odvg.read import read_odvg
from deixis.errors import DataError

WIDTH, HEIGHT = 40, 10


def detection(*instances: dict[str, Any], name: str = "a.jpg") -> dict[str, Any]:
    return {"filename": name, "height": HEIGHT, "width": WIDTH, "detection": {"instances": list(instances)}}


def grounding(*regions: dict[str, Any], caption: str = "", name: str = "a.jpg") -> dict[str, Any]:
    content = {"caption": caption, "regions": list(regions)}
    return {"filename": name, "height": HEIGHT, "width": WIDTH, "grounding": content}


CAT = {"bbox": [1, 2, 30, 8], "label": 0, "category": "cat"}
DOG = {"bbox": [0.5, 0, 5, 9.5], "label": 7, "category": "hot dog"}


def write(folder: Path, *lines: Any, label_map: dict[str, str] | None = None, name: str = "train_od.jsonl") -> Path:
    (folder / "images").mkdir(exist_ok=True, parents=True)
    for line in lines:
        if isinstance(line, dict) and isinstance(line.get("filename"), str) and line["filename"]:
            Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / line["filename"])
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / name).write_text(text + "\n")
    if label_map is not None:
        (folder / "train_label_map.json").write_text(json.dumps(label_map))
    return folder / name


def test_detection_with_a_label_map(tmp_path: Path) -> None:
    labels = {"0": "cat", "7": "hot dog", "3": "zebra"}
    dataset = read_dataset(write(tmp_path, detection(DOG, CAT), detection(name="b.jpg"), label_map=labels))
    assert dataset.vocabulary.names == ("cat", "zebra", "hot dog"), "in the order of the labels"
    np.testing.assert_array_equal(dataset[0].instances.boxes_xyxy_px, [[0.5, 0, 5, 9.5], [1, 2, 30, 8]])
    assert dataset[0].instances.class_ids.tolist() == [2, 0]
    assert len(dataset[1].instances) == 0
    assert dataset[0].source == "train_od.jsonl: line 1"
    assert dataset[0].size_hw == (HEIGHT, WIDTH)


def test_detection_without_a_label_map_names_itself(tmp_path: Path) -> None:
    dataset = read_odvg(write(tmp_path, detection(DOG, CAT)))
    assert dataset.vocabulary.names == ("cat", "hot dog")


def test_grounding_has_a_vocabulary_for_each_image(tmp_path: Path) -> None:
    first = grounding(
        {"bbox": [[1, 1, 5, 5], [6, 1, 9, 5]], "phrase": "two dogs", "tokens_positive": [[0, 8]]},
        {"bbox": [20, 0, 40, 10], "phrase": ["a red car", "the car of my aunt"]},
        {"bbox": [30, 2, 31, 3], "phrase": "two dogs"},
        caption="two dogs by a red car",
    )
    second = grounding({"bbox": [1, 1, 5, 5], "phrase": "a tree"}, caption="a tree .", name="b.jpg")
    with pytest.warns(UserWarning, match="1 of 2 captions .* line 1: phrase 'the car of my aunt' is not in"):
        dataset = read_odvg(write(tmp_path, first, second))
    assert dataset[0].vocabulary.names == ("two dogs", "a red car", "the car of my aunt")
    assert dataset[0].instances.class_ids.tolist() == [0, 0, 1, 2, 0]
    np.testing.assert_array_equal(dataset[0].instances.boxes_xyxy_px[2], dataset[0].instances.boxes_xyxy_px[3])
    assert dataset[0].caption == "two dogs by a red car"
    assert dataset[1].vocabulary.names == ("a tree",)
    assert dataset[1].caption == "", "a caption that only lists the phrases says nothing more"
    assert dataset.vocabulary.names == ("two dogs", "a red car", "the car of my aunt", "a tree")


def test_detection_and_grounding_in_one_file(tmp_path: Path) -> None:
    region = {"bbox": [1, 1, 5, 5], "phrase": "a cat on a mat"}
    lines = [detection(CAT), grounding(region, name="b.jpg"), grounding(name="c.jpg")]
    dataset = read_odvg(write(tmp_path, *lines))
    assert [dataset[i].vocabulary.names for i in range(2)] == [("cat",), ("a cat on a mat",)]
    assert dataset.vocabulary.names == ("cat", "a cat on a mat")
    assert dataset[2].absent_class_ids == frozenset(), "of an image without regions nothing is known"


def test_of_several_label_maps_the_one_named_alike_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, detection(CAT), label_map={"0": "cat"})
    (tmp_path / "other_label_map.json").write_text('{"0": "wrong"}')
    assert read_odvg(path).vocabulary.names == ("cat",)
    path = path.rename(tmp_path / "lines.jsonl")
    with pytest.raises(DataError, match=r"several label maps beside it"):
        read_odvg(path)


def test_json_lines_in_a_json_file_are_recognised(tmp_path: Path) -> None:
    write(tmp_path, detection(CAT), label_map={"0": "cat"}, name="train_odvg.json")
    assert len(read_dataset(tmp_path)) == 1
    assert len(read_dataset(tmp_path / "train_odvg.json")) == 1


def test_a_missing_size_is_read_from_the_image(tmp_path: Path) -> None:
    line = {key: value for key, value in detection(CAT).items() if key not in ("height", "width")}
    assert read_odvg(write(tmp_path, line))[0].size_hw == (HEIGHT, WIDTH)


FAULTS: dict[str, tuple[Any, str]] = {
    "no json": ("{", "line 2: malformed JSON"),
    "a list": ([1], "line 2: holds a list"),
    "no name": (detection(name=""), "line 2: has no filename"),
    "neither": ({"filename": "a.jpg"}, "line 2: has neither"),
    "instances": ({**detection(), "detection": {"instances": 5}}, "line 2: instances must be a list of objects"),
    "label": (detection({**CAT, "label": "0"}), "line 2: instance 1: label must be a whole number, got '0'"),
    "unknown": (detection(CAT, {**CAT, "label": 5}), "line 2: instance 2: label 5 is not among the 1"),
    "other": (detection({**CAT, "category": "dog"}), "label 0 is 'cat' in the label map, its category 'dog'"),
    "bbox": (detection({**CAT, "bbox": [1, 2, 3]}), r"instance 1: bbox must be four finite numbers .* got \[1, 2, 3\]"),
    "no bbox": (detection({"label": 0}), "instance 1: bbox must be four finite numbers .* got None"),
    "phrase": (grounding({"bbox": [1, 1, 2, 2], "phrase": ""}), "line 2: region 1: phrase must be text"),
    "no phrase": (grounding({"bbox": [1, 1, 2, 2], "phrase": []}), "line 2: region 1: phrase must be text"),
    "boxes": (grounding({"bbox": [[1, 1, 2]], "phrase": "x"}), "line 2: region 1: bbox must be"),
    "size": ({**detection(), "height": 0}, r"line 2: image size \(height, width\) must be positive, .* got \(0, 40\)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_clear_line(tmp_path: Path, name: str) -> None:
    line, message = FAULTS[name]
    path = write(tmp_path, detection(CAT, name="first.jpg"), line, label_map={"0": "cat"})
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(path)
    assert "\n" not in str(caught.value)
    assert "train_od.jsonl" in str(caught.value)


def test_faults_of_whole_files(tmp_path: Path) -> None:
    path = write(tmp_path, detection({"bbox": [1, 1, 2, 2], "label": 3}))
    with pytest.raises(DataError, match=r"line 1: instance 1: has no category and there is no label map"):
        read_odvg(path)
    with pytest.raises(DataError, match=r"no line names a class or a phrase"):
        read_odvg(write(tmp_path, detection()))
    path.write_text("\n")
    with pytest.raises(DataError, match=r"has no line"):
        read_odvg(path)
    path.write_bytes(b'{"filename": "\xff"}')
    with pytest.raises(DataError, match=r"is no UTF-8 text"):
        read_odvg(path)
    write(tmp_path, detection(CAT), label_map={"zero": "cat"})
    with pytest.raises(DataError, match=r"expected numbers to names"):
        read_odvg(path)
    write(tmp_path, detection(CAT), label_map={"0": "cat"})
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 1 image files not found, the first is 'a.jpg'"):
        read_odvg(path)
