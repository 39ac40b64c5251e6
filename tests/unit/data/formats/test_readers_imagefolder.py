"""Hugging Face's ImageFolder: its kinds of metadata, names of numbers, splits and boxes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from deixis.data.findings import Findings
from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.writing import write_parts
from deixis.errors import DataError
from deixis.records import Dataset, Instances, SampleList

LINE = '{"file_name": "a.jpg", "objects": {"bbox": [], "categories": []}}\n'
RECOGNISED = {
    "imagefolder": {"metadata.jsonl": LINE, "a.jpg": ""},
    "imagefolder in splits": {"train/metadata.jsonl": LINE, "README.md": ""},
    "imagefolder as a table": {"metadata.csv": "file_name,objects\n"},
}


def row(name: str, *boxes: Any, categories: Any = None, **more: Any) -> dict[str, Any]:
    return {"file_name": name, "objects": {"bbox": list(boxes), "categories": categories or [0] * len(boxes)}, **more}


A, B = [10, 20, 30, 10], [50, 40, 40, 30]
ROWS = [row("a.png", A, categories=["cat"]), row("b.png", B, A, categories=["dog", "cat"])]


def write(folder: Path, rows: Any, name: str = "metadata.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in ("a.png", "b.png"):
        Image.new("RGB", (100, 80)).save(folder / picture)
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def boxes(dataset: Dataset) -> list[Any]:
    return [dataset[i].instances.boxes_xyxy_px.round(6).tolist() for i in range(len(dataset))]


RIGHT = [[[10, 20, 40, 30]], [[50, 40, 90, 70], [10, 20, 40, 30]]]


@pytest.mark.parametrize("place", [".", "metadata.jsonl"])
def test_lines(tmp_path: Path, place: str) -> None:
    write(tmp_path, ROWS)
    assert format_of(tmp_path / place) == "imagefolder"
    dataset = read_dataset(tmp_path / place)
    assert boxes(dataset) == RIGHT
    assert dataset.vocabulary.names == ("cat", "dog")


def test_a_list_of_objects_and_rows_without_any(tmp_path: Path) -> None:
    objects = [{"bbox": A, "category": "cat", "iscrowd": 0}, {"bbox": B, "category": "dog", "iscrowd": 1}]
    rows = [{"file_name": "a.png", "objects": objects}, {"file_name": "b.png", "objects": None}]
    dataset = read_dataset(write(tmp_path, rows))
    assert boxes(dataset) == [[[10, 20, 40, 30], [50, 40, 90, 70]], []]
    assert dataset[0].instances.is_crowd.tolist() == [False, True]


def test_a_table_with_objects_as_text(tmp_path: Path) -> None:
    write(tmp_path, [])
    (tmp_path / "metadata.jsonl").unlink()
    text = io.StringIO()
    csv.writer(text).writerows([["file_name", "objects"], *([r["file_name"], json.dumps(r["objects"])] for r in ROWS)])
    (tmp_path / "metadata.csv").write_text(text.getvalue())
    assert boxes(read_dataset(tmp_path)) == RIGHT


def test_ids_and_areas_are_kept_where_they_are_whole(tmp_path: Path) -> None:
    rows = [row("a.png", A, categories=["cat"], image_id=7), row("b.png", B, A, categories=["dog", "cat"], image_id=3)]
    rows[0]["objects"] |= {"area": [12.5], "id": [4]}
    rows[1]["objects"] |= {"area": [1.0], "iscrowd": [0, 1, 0]}
    dataset = read_dataset(write(tmp_path, rows))
    assert [dataset[i].image_id for i in range(2)] == [7, 3]
    assert [dataset[i].instances.areas_px.tolist() for i in range(2)] == [[12.5], [1200.0, 300.0]]
    assert not dataset[1].instances.is_crowd.any()
    rows[0]["image_id"] = 0
    assert [read_dataset(write(tmp_path, rows))[i].image_id for i in range(2)] == [0, 3]
    rows[0]["image_id"], rows[1]["image_id"] = 7, 7
    same = read_dataset(write(tmp_path, rows))
    assert [same[i].image_id for i in range(2)] == [1, 2]


def test_what_is_written_is_laid_out_for_datasets(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path / "in", ROWS))
    parts = {"train": dataset, "val": SampleList((dataset[1].evolve(instances=Instances.none()),), dataset.vocabulary)}
    assert write_parts(parts, tmp_path / "out", "imagefolder") == {
        "train": f"{tmp_path}/out#train",
        "val": f"{tmp_path}/out#val",
    }
    (line, _) = (tmp_path / "out/train/metadata.jsonl").read_text().splitlines()
    assert json.loads(line)["objects"] == {
        "id": [0],
        "bbox": [A],
        "category": [0],
        "area": [300.0],
        "iscrowd": [False],
    }
    head = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---")[1])
    features = {feature["name"]: feature for feature in head["dataset_info"]["features"]}
    assert set(features) == {"image", *json.loads(line)} - {"file_name"}
    empty = read_dataset(f"{tmp_path}/out#validation")
    assert (empty.vocabulary.names, boxes(empty)) == (("cat", "dog"), [[]])


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="parquet is an extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path, [])
    (tmp_path / "metadata.jsonl").unlink()
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "metadata.parquet")
    assert format_of(tmp_path) == format_of(tmp_path / "metadata.parquet") == "imagefolder"
    assert boxes(read_dataset(tmp_path)) == RIGHT


def test_splits_are_folders(tmp_path: Path) -> None:
    write(tmp_path / "train", ROWS[:1])
    write(tmp_path / "validation", ROWS[1:])
    with pytest.raises(DataError, match=r"has the splits train, val; name one, as in .*#train"):
        read_dataset(tmp_path)
    assert boxes(read_dataset(f"{tmp_path}#validation")) == RIGHT[1:]


CARD = """---
license: mit
dataset_info:
  features:
  - name: image
    dtype: image
  - name: objects
    sequence:
    - name: categories
      dtype:
        class_label:
          names:
            '0': tench
            '1': off
---
# A data set
"""


def test_numbers_are_named_by_the_card_or_a_list_or_by_themselves(tmp_path: Path) -> None:
    write(tmp_path / "train", [row("a.png", A, B, categories=[1, 0])])
    with pytest.warns(UserWarning, match=r"classes have numbers but no names; name them in a file classes.txt"):
        assert read_dataset(tmp_path).vocabulary.names == ("0", "1")
    (tmp_path / "README.md").write_text("# How it was made\n")
    with pytest.warns(UserWarning, match=r"classes have numbers but no names"):
        read_dataset(tmp_path)
    (tmp_path / "README.md").write_text(CARD)
    dataset = read_dataset(tmp_path)
    assert dataset.vocabulary.names == ("tench", "off")
    assert dataset[0].instances.class_ids.tolist() == [1, 0]
    (tmp_path / "README.md").unlink()
    (tmp_path / "id2label.json").write_text('{"0": "cat", "1": "dog"}')
    assert read_dataset(tmp_path).vocabulary.names == ("cat", "dog")


def test_corners_are_found_from_the_values(tmp_path: Path) -> None:
    write(tmp_path, [row("a.png", [10, 20, 40, 30], [50, 40, 90, 70], categories=["cat", "cat"])])
    with pytest.warns(UserWarning, match=r"boxes read as corners"):
        assert boxes(read_dataset(tmp_path))[0] == [[10, 20, 40, 30], [50, 40, 90, 70]]


FAULTS: dict[str, tuple[list[Any], str]] = {
    "count": ([row("a.png", A, categories=["cat", "dog"])], r"row 1: expected lists of as many boxes as categories"),
    "box": ([row("a.png", [1, 2, 3], categories=["cat"])], r"row 1: bbox must be four finite numbers, got \[1, 2, 3\]"),
    "label": ([row("a.png", A, categories=[1.5])], r"row 1: categories must be a name or a number, got '1.5'"),
    "name": ([ROWS[0], {"file_name": 5, "objects": None}], r"row 2: has no file_name"),
    "missing": ([row("z.png", A, categories=["cat"])], r"1 of 1 image files not found, the first is 'z.png'"),
    "objects": ([{"file_name": "a.png", "objects": 5}], r"row 1: objects must have bbox and category, got 5"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(tmp_path: Path, fault: str) -> None:
    rows, said = FAULTS[fault]
    with pytest.raises(DataError, match=said) as caught:
        read_dataset(write(tmp_path, rows))
    assert "\n" not in str(caught.value)
    findings = Findings()
    assert len(read_dataset(write(tmp_path, [*ROWS, *rows[-1:]]), findings=findings)) == 2
    assert [finding.kind for finding in findings.found] in (["record_malformed"], ["image_missing"])


def test_metadata_without_objects_is_of_no_known_format(tmp_path: Path) -> None:
    write(tmp_path, [{"file_name": "a.png", "text": "a cat"}])
    with pytest.raises(DataError, match=r"metadata of a Hugging Face ImageFolder"):
        read_dataset(tmp_path)


def test_boxes_and_labels_beside_the_file_name(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a.png", "bboxes": [A], "labels": ["cat"]},
        {"file_name": "b.png", "bboxes": [], "labels": []},
    ]
    assert boxes(read_dataset(write(tmp_path, rows))) == [[[10, 20, 40, 30]], []]
