"""What damaged or hostile annotation files cause: one line with the file's name, quickly, and never a wrong reading."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from format_examples import write_example
from fuzz.detection import small_set
from PIL import Image

from deixis.data.findings import Findings
from deixis.data.formats import read_dataset
from deixis.data.formats.annotation_files import parse_json
from deixis.data.formats.table import FORMATS
from deixis.data.formats.writing import write_dataset
from deixis.data.pixels.images import image_sizes_hw, load, load_image
from deixis.data.reading import reads
from deixis.data.yaml_text import parse_yaml
from deixis.errors import DataError, OptionError
from deixis.options.detect_train import DetectTrainOptions
from deixis.options.yaml_files import read_options

MAIN_FILE = {
    "coco": "labels.json",
    "lvis": "lvis.json",
    "voc": "Annotations/000002.xml",
    "yolo": "data.yaml",
    "odvg": "annotations.jsonl",
    "openimages": "train-annotations-bbox.csv",
    "labelme": "000002.json",
    "parquet": "data/train-00000-of-00001.parquet",
}


def write(format: str, folder: Path) -> Path:
    """A sound data set; its main annotation file."""
    if format not in MAIN_FILE:
        return write_example(format, folder / "set")
    write_dataset(small_set(Random(1)), folder / "set", format)
    found = sorted((folder / "set").rglob(Path(MAIN_FILE[format]).name))
    assert found, sorted((folder / "set").rglob("*"))
    return found[0]


def coco(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A COCO file with something changed."""
    file = write("coco", folder)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_no_reader_opens_a_pipe_or_a_device(format: str, make: Any, checked: bool, tmp_path: Path) -> None:
    file = write(format, tmp_path)
    several = FORMATS[format].find(tmp_path / "set")
    file.unlink()
    make(file)
    with pytest.raises(DataError):
        read_dataset(file, format=format, findings=Findings() if checked else None)
    with pytest.raises(DataError):
        read_dataset(file)
    if len(several) < 2 and format not in ("voc", "labelme"):
        with pytest.raises(DataError):
            read_dataset(tmp_path / "set", format=format)
    with pytest.raises(DataError):
        read_dataset(tmp_path / "set")


def test_a_picture_that_is_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    for read in (load_image, image_sizes_hw):
        with pytest.raises(DataError, match=r"a\.jpg: is a pipe"):
            read(tmp_path / "a.jpg")


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), ZeroDivisionError(), MemoryError(), RecursionError()])
def test_whatever_a_reader_meets_names_its_file(error: Exception, tmp_path: Path) -> None:
    @reads("tea leaves")
    def read(path: str | Path) -> None:
        raise error

    with pytest.raises(DataError, match=r"cup: cannot be read as tea leaves"):
        read(tmp_path / "cup")


@pytest.mark.filterwarnings("ignore:.*dropped 1 boxes")
@pytest.mark.parametrize("where", ["id", "image_id", "category_id", "height", "bbox", "area", "segmentation"])
@pytest.mark.parametrize("value", [int("9" * 4_000), -(10**400), 10**30])
def test_numbers_of_thousands_of_digits(where: str, value: int, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        row = content["images"][0] if where == "height" else content["annotations"][0]
        row[where] = [value] * 4 if where == "bbox" else [[value] * 6] if where == "segmentation" else value

    file = coco(tmp_path, change)
    if where in ("id", "area") or (where, value) == ("bbox", 10**30):  # a box far outside is dropped, with a warning
        assert len(read_dataset(file)) == 3
    else:
        with pytest.raises(DataError, match=r"labels\.json"):
            read_dataset(file)


def test_numbers_beyond_what_python_reads_are_one_line(tmp_path: Path) -> None:
    file = write("coco", tmp_path)
    file.write_text(file.read_text().replace('"id": 1', f'"id": {"7" * 5_000}', 1))
    with pytest.raises(DataError, match=r"labels\.json: malformed JSON"):
        read_dataset(file)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"annotations":['])
def test_depth_without_end(opening: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(opening * 200_000)
    with pytest.raises(DataError, match=r"labels\.json"):
        read_dataset(tmp_path / "labels.json", format="coco")


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '[{"b": [], "b": [1]}]', '{"a": {"c": 1}, "b": 0, "a": {}}'])
def test_a_key_with_two_values_is_an_error(text: str) -> None:
    with pytest.raises(DataError, match=r"x\.json: malformed JSON: the key '.' occurs more than once"):
        parse_json(text, "x.json")
    assert parse_json('{"a": [1], "a": [1]}', "x.json") == {"a": [1]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"\ud800"', "\ufffd"),
        (r'"a\uDFFFb"', "a\ufffdb"),
        (r'"\ud83e\udd9d"', "🦝"),
        (r'"\ud83e\ud83e\udd9d"', "\ufffd🦝"),
        (r'"\\ud800"', "\\ud800"),
        (r'"caf\udce9.jpg"', "caf\udce9.jpg"),
        (r'"\u00e9\n"', "é\n"),
    ],
)
def test_half_characters_of_json(text: str, expected: str) -> None:
    assert parse_json(text, "x.json") == expected


def test_a_file_name_that_is_no_utf8_is_found(tmp_path: Path) -> None:
    file = coco(tmp_path, lambda content: content["images"][0].update(file_name="caf\udce9.png"))
    (picture,) = sorted(file.parent.rglob("000001.png"))
    picture.rename(picture.with_name("caf\udce9.png"))
    assert load(read_dataset(file)[0]).size_hw


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join(['*' + before] * 10)}]}}\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
YAMLS = {
    "aliases multiplied": (BOMB + "names: *h\n", "expand to more than"),
    "merges multiplied": (MERGES, "expand to more than"),
    "an alias in itself": ("names: &n [cat, *n]\n", "contains itself"),
    "a mapping in itself": ("a: &n {b: {c: *n}}\n", "contains itself"),
    "a key twice": ("names: [cat]\nnames: [dog]\n", "'names' occurs more than once"),
    "a number twice": ("names: {0: cat, 0: dog}\n", "'0' occurs more than once"),
    "depth": ("a: " + "[" * 3_000, "cannot be read as YAML"),
    "tags": ("a: !!python/object/apply:os.getcwd []\n", "cannot be read as YAML"),
    "digits": ("a: " + "9" * 5_000, "cannot be read as YAML"),
    "date": ("a: 2001-99-99", "cannot be read as YAML"),
}


@pytest.mark.parametrize("case", YAMLS)
def test_hostile_yaml_is_one_line_in_data_and_in_options(case: str, tmp_path: Path) -> None:
    text, message = YAMLS[case]
    file = tmp_path / "data.yaml"
    file.write_text("train: images\n" + text)
    left_as_text = case in ("tags", "digits", "date")  # data's values stay text, so nothing of them can fail
    with pytest.raises(DataError, match=rf"data\.yaml: .*{'names must be' if left_as_text else message}"):
        read_dataset(file)
    with pytest.raises(OptionError, match=rf"data\.yaml: .*{message}"):
        read_options(DetectTrainOptions, file)


def test_ordinary_aliases_are_read() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {x: 1}, y: 2}\n", "x") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": {"x": 1, "y": 2},
    }
    assert parse_yaml("", "x") is None


@pytest.mark.parametrize(
    ("declared", "codec"),
    [
        ("", "utf-8"),
        ("", "utf-16"),
        ("utf-8", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("UTF-16", "utf-8"),
        ("latin-1", "latin-1"),
        ("ISO-8859-15", "iso-8859-15"),
        ("windows-1252", "cp1252"),
    ],
)
def test_voc_files_in_other_encodings(declared: str, codec: str, tmp_path: Path) -> None:
    file = write("voc", tmp_path)
    text = file.read_text(encoding="utf-8")
    body = text[text.index("?>") + 2 :] if text.startswith("<?xml") else text
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    body = body.replace("<name>cat</name>", "<name>größe</name>").replace("<name>red bird</name>", "<name>größe</name>")
    file.write_bytes((head + body).encode(codec))
    assert "größe" in read_dataset(tmp_path / "set").vocabulary.names


def test_voc_files_in_chinese_and_in_nothing_known(tmp_path: Path) -> None:
    file = write("voc", tmp_path)
    text = file.read_text(encoding="utf-8")
    body = text[text.index("?>") + 2 :].replace("<name>cat<", "<name>猫<").replace("<name>red bird<", "<name>猫<")
    file.write_bytes(b'<?xml version="1.0" encoding="gb2312"?>' + body.replace("größe", "猫").encode("gb2312"))
    assert "猫" in read_dataset(tmp_path / "set").vocabulary.names
    for declared in ("klingon", "hex", "utf-7"):
        file.write_bytes(f'<?xml version="1.0" encoding="{declared}"?>'.encode() + body.encode("latin-1", "replace"))
        if declared != "utf-7":
            with pytest.raises(DataError, match=r"000002\.xml: cannot read as XML"):
                read_dataset(tmp_path / "set")


@pytest.mark.parametrize(
    "lines",
    [
        ["photo", "photo 1", "photo 2"],
        ["photo 1 ", "photo 2\t", "photo"],
        ["photo.png", "photo 1.png", "photo 2.png"],
        ["photo 1  1", "photo  1", "photo 2 -1"],
    ],
)
def test_voc_lists_may_have_names_with_blanks(lines: list[str], tmp_path: Path) -> None:
    write("voc", tmp_path)
    root = tmp_path / "set"
    for old, new in (("000001", "photo"), ("000002", "photo 1"), ("000003", "photo 2")):
        for file in sorted(root.rglob(f"{old}.*")):
            if file.suffix == ".xml":
                file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
            file.rename(file.with_stem(new))
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "mine.txt").write_text("\n".join(lines) + "\n")
    assert len(read_dataset(root, split="mine")) == 3
    (lists / "mine.txt").write_text("photo\nphoto 7\n")
    with pytest.raises(DataError, match="'photo 7'"):
        read_dataset(root, split="mine")


@pytest.mark.parametrize("far", [2.0**31, 4e8, 1.2e7, -3e9, 1e30])
def test_a_far_point_is_one_line_in_every_reader_with_polygons(far: float, tmp_path: Path) -> None:
    polygon = [0, 0, far, 1, 3, 3]
    file = coco(tmp_path, lambda content: content["annotations"][0].update(segmentation=[polygon]))
    with pytest.raises(DataError, match=r"labels\.json: annotation 1: segmentation has a point at"):
        read_dataset(file)
    findings = Findings()
    read_dataset(file, findings=findings)
    assert "mask_malformed" in {finding.kind for finding in findings.found}
    for kind, points in (("polygon", [[0, 0], [far, 1], [3, 3]]), ("circle", [[2, 2], [far, 2]])):
        labelme = write("labelme", tmp_path / kind)
        content = json.loads(labelme.read_text())
        content["shapes"][0] = {"label": "cat", "shape_type": kind, "points": points}
        labelme.write_text(json.dumps(content))
        with pytest.raises(
            DataError,
            match=r"000002\.json: shape 1: (points must be|has a point at|has coordinates that are not finite)",
        ):
            read_dataset(labelme.parent)


@pytest.mark.filterwarnings("ignore:.*dropped")
def test_boxes_far_outside_leave_no_infinite_area(tmp_path: Path) -> None:
    lines = write("odvg", tmp_path)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    rows[0]["detection"]["instances"][0]["bbox"] = [-1e308, -1e308, 1e308, 1e308]
    lines.write_text("\n".join(map(json.dumps, rows)))
    file = coco(
        tmp_path / "coco", lambda content: content["annotations"][0].update(bbox=[0, 0, 1e200, 1e200], area=1e300)
    )
    for sample in (read_dataset(lines)[0], read_dataset(file)[0]):
        height, width = sample.size_hw
        assert sample.instances.areas_px.max() == height * width


@pytest.mark.parametrize("size", [(10**9, 10), (10, 10**9), (10**30, 10**30), (1e30, 5), (60_000, 60_000)])
def test_impossible_sizes_are_one_line_in_every_reader_with_sizes(size: tuple[float, float], tmp_path: Path) -> None:
    file = coco(tmp_path, lambda content: content["images"][0].update(height=size[0], width=size[1]))
    with pytest.raises(DataError, match=r"labels\.json: image 1: image size"):
        read_dataset(file)
    lines = write("odvg", tmp_path / "odvg")
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    rows[0] |= {"height": size[0], "width": size[1]}
    lines.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"annotations\.jsonl: line 1: image size"):
        read_dataset(lines)


@pytest.mark.parametrize("checked", [False, True])
def test_parquet_whose_pages_are_damaged_fails_with_its_name_when_an_item_is_asked_for(
    checked: bool, tmp_path: Path
) -> None:
    """Rows are read at once and pictures later, by workers that the data set is pickled for."""
    file = write("parquet", tmp_path)
    dataset = read_dataset(file, findings=Findings() if checked else None)
    data = bytearray(file.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    file.write_bytes(data)
    copied = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    with pytest.raises(DataError, match=r"row 1|train-00000-of-00001\.parquet"):
        copied[0]


def test_odvg_lines_that_change_after_they_were_checked(tmp_path: Path) -> None:
    lines = write("odvg", tmp_path)
    dataset = read_dataset(lines)
    lines.write_bytes(b'{"filename": 5, "detection": []}\n')
    with pytest.raises(DataError, match=r"annotations\.jsonl"):
        dataset[0]


def test_pictures_in_unknown_hands_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    for error in (TypeError("x"), KeyError("x"), IndexError(), ZeroDivisionError(), MemoryError(), RuntimeError("x")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Image, "open", fail)
        for read in (load_image, image_sizes_hw):
            with pytest.raises(DataError, match=r"a\.png: cannot decode image"):
                read(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore:.*left out categories")
@pytest.mark.parametrize("case", ["unknown categories", "repeated names", "doubles"])
def test_many_names_and_many_faults_take_time_in_their_number(case: str, tmp_path: Path) -> None:
    """30,000 of each: the square of that would be minutes."""
    file = write("coco", tmp_path)
    content = json.loads(file.read_text())
    names = [{"id": number, "name": f"n{number}"} for number in range(1, 30_001)]
    if case == "repeated names":
        names = [*content["categories"], *(row | {"id": -row["id"], "name": "cat"} for row in names)]
    elif case == "unknown categories":
        content["annotations"] = [{"image_id": 1, "category_id": -1, "bbox": [0, 0, 1, 1]}] * 30_000
    else:
        names += [{"id": -1, "name": "n100"}, {"id": -2, "name": "n200"}]
    file.write_text(json.dumps(content | {"categories": names}))
    start = time.process_time()
    if case == "repeated names":
        content["annotations"][0]["category_id"] = next(row["id"] for row in names if row["name"] == "cat")
        file.write_text(json.dumps(content | {"categories": names}))
        assert len(read_dataset(file)) == 3
    else:
        with pytest.raises(DataError, match=r"labels\.json"):
            read_dataset(file)
    assert time.process_time() - start < 20
