"""Parquet files in the `objects` layout, as `datasets` and the Hub have them."""

from __future__ import annotations

import builtins
import json
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deixis.data.formats import read_dataset
from deixis.data.formats.parquet.read import read_parquet
from deixis.errors import DataError

pa = pytest.importorskip("pyarrow", reason="parquet is an extra; pip install 'deixis[parquet]'")
pq = pytest.importorskip("pyarrow.parquet")

WIDTH, HEIGHT = 40, 10
NAMES = ["Coverall", "Face_Shield", "Gloves"]


def image(colour: int = 5) -> bytes:
    file = BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (colour, 0, 0)).save(file, "PNG")
    return file.getvalue()


def row(boxes: list[list[float]], category: list[Any], colour: int = 5, **more: Any) -> dict[str, Any]:
    """As cppe-5 has them."""
    objects = {"id": list(range(len(boxes))), "area": [12.5] * len(boxes), "bbox": boxes, "category": category}
    return {"image_id": 100 + colour, "image": {"bytes": image(colour), "path": None}, "objects": objects, **more}


def features(label: Any, style: str) -> dict[str, Any]:
    if style == "Sequence":  # datasets before 4
        return {"objects": {"feature": {"bbox": {}, "category": label}, "_type": "Sequence"}}
    if style == "list of columns":
        return {"objects": [{"bbox": {}, "category": label}]}
    return {"objects": {"bbox": {}, "category": {"feature": label, "_type": "List"}}}


def write(
    folder: Path,
    rows: list[dict[str, Any]],
    name: str = "data/train-00000-of-00001.parquet",
    style: str = "List",
    names: list[str] | None = NAMES,
) -> Path:
    label = {"names": names, "_type": "ClassLabel"} if names else {"dtype": "int64", "_type": "Value"}
    metadata = {"huggingface": json.dumps({"info": {"features": features(label, style)}})}
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), folder / name, row_group_size=2)
    return folder


BOXES = [[10.0, 1.0, 20.0, 8.0], [0.5, 0.0, 5.0, 9.5]]
OBJECTS = {"bbox": BOXES, "category": [0, 1]}


@pytest.mark.parametrize("style", ["List", "Sequence", "list of columns"])
def test_a_folder(tmp_path: Path, style: str) -> None:
    dataset = read_dataset(write(tmp_path, [row(BOXES, [2, 0]), row([], [], 6)], style=style))
    assert dataset.vocabulary.names == tuple(NAMES)
    sample = dataset[0]
    np.testing.assert_array_equal(sample.instances.boxes_xyxy_px, [[10, 1, 30, 9], [0.5, 0, 5.5, 9.5]])
    assert sample.instances.class_ids.tolist() == [2, 0]
    np.testing.assert_array_equal(sample.instances.areas_px, [12.5, 12.5])
    assert sample.image_id == 105
    assert sample.size_hw == (HEIGHT, WIDTH)
    assert len(dataset[1].instances) == 0


def test_pictures_are_decoded_when_asked_for_across_files_and_groups(tmp_path: Path) -> None:
    write(tmp_path, [row(BOXES, [0, 1], colour) for colour in range(5)], "train-00000-of-00002.parquet")
    write(tmp_path, [row(BOXES, [0, 1], colour) for colour in range(5, 8)], "train-00001-of-00002.parquet")
    dataset = read_parquet(tmp_path)
    for index in (7, 0, 4, 5, 1, 6, 2, 3):
        pixels = dataset[index].image
        assert isinstance(pixels, np.ndarray)
        assert pixels[0, 0, 0] == index
    dataset = pickle.loads(pickle.dumps(dataset))  # noqa: S301  as loading workers get it
    pixels = dataset[6].image
    assert isinstance(pixels, np.ndarray)
    assert pixels[0, 0, 0] == 6


def test_a_list_of_objects_and_names_as_text(tmp_path: Path) -> None:
    objects = [{"bbox": BOXES[0], "label": "dog"}, {"bbox": BOXES[1], "label": "cat"}]
    rows = [{"image": {"bytes": image(), "path": "x/b.png"}, "objects": objects}]
    dataset = read_parquet(write(tmp_path, rows, names=None))
    assert dataset.vocabulary.names == ("cat", "dog")
    assert dataset.records[0].instances.class_ids.tolist() == [1, 0]
    assert (dataset.records[0].image, dataset.records[0].image_id) == (Path("x/b.png"), 1)


def test_crowds_sizes_and_pictures_outside(tmp_path: Path) -> None:
    objects = {"bbox": BOXES, "categories": [0, 1], "iscrowd": [0, 1]}
    rows = [{"image": {"bytes": None, "path": "b.png"}, "objects": objects, "width": WIDTH, "height": HEIGHT}]
    write(tmp_path, rows, "train.parquet")
    (tmp_path / "b.png").write_bytes(image(9))
    dataset = read_parquet(tmp_path / "train.parquet")
    assert dataset[0].instances.is_crowd.tolist() == [False, True]
    assert np.asarray(dataset[0].image)[0, 0, 0] == 9
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"row 1: image has neither bytes nor a file, got path 'b.png'"):
        _ = read_parquet(tmp_path)[0]


def test_corners_are_noticed(tmp_path: Path) -> None:
    corners = [[30.0, 1.0, 39.0, 9.0], [2.0, 2.0, 5.0, 9.0]]
    write(tmp_path, [row(corners, [0, 0])])
    with pytest.warns(UserWarning, match=r"boxes read as corners"):
        dataset = read_parquet(tmp_path)
    np.testing.assert_array_equal(dataset.records[0].instances.boxes_xyxy_px, corners)
    read = read_parquet(tmp_path, box_format="xywh")
    np.testing.assert_array_equal(read.records[0].instances.boxes_xyxy_px, [[30, 1, 40, 10], [2, 2, 7, 10]])


def test_splits_are_named(tmp_path: Path) -> None:
    write(tmp_path, [row(BOXES, [0, 1])])
    write(tmp_path, [row(BOXES, [0, 1])] * 2, "data/validation-00000-of-00001.parquet")
    assert len(read_dataset(f"{tmp_path}#val")) == 2
    assert len(read_dataset(tmp_path, split="train")) == 1
    with pytest.raises(DataError, match=r"has the splits train, validation; name one"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"has no split 'test', only train, validation"):
        read_dataset(tmp_path, split="test")


FAULTS = {
    "category": ([row(BOXES, [0, 3])], "train-00000-of-00001.parquet: row 1: category 3 is not one of 3 classes"),
    "box": ([row(BOXES, [0, 1]), row([[1.0, 2.0, 3.0]], [0])], r"row 2: bbox must be four .* got \[1.0, 2.0, 3.0\]"),
    "nan": ([row([[1.0, 2.0, 3.0, float("nan")]], [0])], "row 1: bbox must be four finite numbers"),
    "count": ([row(BOXES, [0])], "row 1: has 2 boxes and 1 categories"),
    "none": ([{"image": {"bytes": b"x", "path": ""}, "objects": {"bbox": [[1.0]]}}], "row 1: objects has no category"),
    "crowd": (
        [{**row([], []), "objects": {"bbox": BOXES, "category": [0, 1], "iscrowd": [1]}}],
        "2 numbers of iscrowd",
    ),
    "image": ([{**row(BOXES, [0, 1]), "image": {"bytes": b"x"}}], "row 1: cannot decode image"),
    "columns": ([{"picture": b"x"}], "expected the columns image and objects, found picture"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_clear_line(tmp_path: Path, name: str) -> None:
    rows, message = FAULTS[name]
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(write(tmp_path, rows))
    assert "\n" not in str(caught.value)


def test_faults_of_whole_files(tmp_path: Path) -> None:
    write(tmp_path, [row(BOXES, [0, 1])], names=None)
    with pytest.raises(DataError, match=r"category 0 is a number without a name \(no ClassLabel\)"):
        read_parquet(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(DataError, match=r"broken.parquet: cannot read as parquet") as caught:
        read_parquet(tmp_path / "broken.parquet")
    assert "\n" not in str(caught.value)


def test_without_pyarrow_the_install_line_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [row(BOXES, [0, 1])])
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match=r"pip install 'deixis\[parquet\]'"):
        read_dataset(tmp_path)
