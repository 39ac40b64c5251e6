"""Formats are told by the files, and what cannot be told is said with what was seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from format_examples import recognised

from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.table import FORMATS
from deixis.errors import DataError

COCO = '{"images": [], "annotations": [], "categories": []}'
LABELME = '{"version": "5", "shapes": [], "imagePath": "a.jpg", "imageData": null}'
LINES = '{"filename": "a.jpg", "detection": {"instances": []}}\n{"filename": "b.jpg", "detection": {"instances": []}}\n'
BOXES = "ImageID,LabelName,XMin,XMax,YMin,YMax\n"

FILES: dict[str, dict[str, str | bytes]] = {
    "coco": {"labels.json": COCO},
    "coco in annotations": {"annotations/instances.json": COCO, "README.md": ""},
    "lvis": {"lvis.json": '{"images": [{"neg_category_ids": []}]}'},
    "voc": {"a.xml": "<annotation/>", "b.xml": "<annotation/>"},
    "yolo": {"data.yaml": "names: [a]\n", "images/a.jpg": "", "classes.txt": "a"},
    "odvg": {"train.jsonl": LINES, "label_map.json": "{}"},
    "odvg in json": {"train.json": LINES},
    "openimages": {"boxes.csv": BOXES, "class-descriptions.csv": "/m/1,a"},
    "labelme": {"a.json": LABELME, "b.json": LABELME},
    "labelme in images": {"images/a.json": LABELME, "README.md": ""},
    "parquet": {"data/train-00000-of-00001.parquet": "PAR1", "README.md": ""},
}
for _format in FORMATS:
    FILES |= recognised(_format)


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


@pytest.mark.parametrize("case", FILES)
def test_folders(tmp_path: Path, case: str) -> None:
    assert format_of(write(tmp_path, FILES[case])) == case.split()[0]


@pytest.mark.parametrize("case", [case for case in FILES if not case.startswith("voc") and "by its folder" not in case])
def test_files(tmp_path: Path, case: str) -> None:
    name, text = next(iter(FILES[case].items()))
    assert format_of(write(tmp_path, {name: text}) / name) == case.split()[0]


def test_every_format_stands_in_the_table_by_its_name_and_is_recognised_above() -> None:
    assert {name: format.name for name, format in FORMATS.items()} == {name: name for name in FORMATS}
    assert {case.split()[0] for case in FILES} == set(FORMATS)


def test_two_formats_in_a_folder_are_both_named(tmp_path: Path) -> None:
    write(tmp_path, FILES["coco"] | FILES["yolo"])
    with pytest.raises(DataError, match=r"several formats: yolo \(data.yaml\); coco \(labels.json\); name one"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"labels.json: 'images' is empty"):
        read_dataset(tmp_path, format="coco")


def test_nothing_known_lists_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": "", "b.jpg": "", "notes.txt": "", "config.yaml": "seed: 1\n"})
    write(tmp_path / "sub", FILES["voc"])
    with pytest.raises(DataError, match=r"it holds 2 .jpg, 1 .txt, 1 .yaml; give one of its folders: sub") as caught:
        read_dataset(tmp_path)
    assert all(name in str(caught.value) for name in FORMATS)
    with pytest.raises(DataError, match=r"notes.txt: no annotations of a known format .* name it with --format"):
        read_dataset(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=r"a.xml: no annotations of a known format .*; give its folder"):
        read_dataset(tmp_path / "sub" / "a.xml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"it holds no files; give the folder of the annotations"):
        read_dataset(tmp_path / "empty")


def test_a_split_where_there_is_none_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, FILES["coco"])
    with pytest.raises(DataError, match=r"coco annotations have no splits .* give the file of 'val'"):
        read_dataset(f"{tmp_path}/labels.json#val")


def test_a_path_with_a_hash_is_a_path(tmp_path: Path) -> None:
    write(tmp_path, {"labels#val.json": json.dumps({"images": 3})})
    with pytest.raises(DataError, match=r"no list of objects under 'images'"):
        read_dataset(tmp_path / "labels#val.json")
