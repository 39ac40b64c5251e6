"""YOLO labels without a `data.yaml`: CVAT's YOLO 1.1, LabelImg's and Label Studio's folders."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from PIL import Image

from deixis.data.formats import format_of, read_dataset
from deixis.errors import DataError
from deixis.records import Dataset

LINE = "1 0.5 0.5 0.2 0.5\n"
RECOGNISED = {
    "darknet": {"obj.data": "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n", "obj.names": "cat\n"},
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.new("RGB", (60, 40)).save(folder / name)
        else:
            (folder / name).write_text(text)
    return folder


def boxes(path: Path | str, **options: object) -> list[list[list[float]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        dataset: Dataset = read_dataset(path, **options)  # type: ignore[arg-type]
    assert dataset.vocabulary.names == ("cat", "wash bear")
    return [dataset[i].instances.boxes_xyxy_px.round(6).tolist() for i in range(len(dataset))]


BOX = [[24.0, 10.0, 36.0, 30.0]]
DATA = {
    "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = b/\n",
    "obj.names": "cat\nwash bear\n",
    "train.txt": "data/obj_train_data/x/a.png\ndata/obj_train_data/b.png\n",
    "valid.txt": "data/obj_valid_data/c.png\n",
    "obj_train_data/x/a.txt": LINE,
    "obj_train_data/b.txt": "",
    "obj_valid_data/c.txt": LINE,
}
PICTURES = ("obj_train_data/x/a.png", "obj_train_data/b.png", "obj_valid_data/c.png")


def test_cvats_yolo_11_with_its_splits(tmp_path: Path) -> None:
    write(tmp_path, DATA | dict.fromkeys(PICTURES, ""))
    assert format_of(tmp_path) == format_of(tmp_path / "obj.data") == "darknet"
    assert boxes(f"{tmp_path}#train") == [BOX, []]
    assert boxes(f"{tmp_path}/obj.data#val") == [BOX]
    with pytest.raises(DataError, match=r"has the splits train, val; name one"):
        read_dataset(tmp_path)


SMALL = {"obj.data": "classes = 2\nnames = data/obj.names\n", "obj.names": "cat\nwash bear\n"}
NOTES = '{"categories": [{"id": 1, "name": "wash bear"}, {"id": 0, "name": "cat"}], "info": {}}'


@pytest.mark.parametrize(
    "files",
    {
        "a subset of another name": SMALL
        | {"obj.data": SMALL["obj.data"] + "Barn = data/Barn.txt\n", "Barn.txt": "data/obj_Barn_data/a.png\n"}
        | {"obj_Barn_data/a.txt": LINE, "obj_Barn_data/a.png": ""},
        "no list of images": SMALL
        | {"obj.data": SMALL["obj.data"] + "train = data/train.txt\n"}
        | {"obj_train_data/a.txt": LINE, "obj_train_data/a.png": ""},
        "a list in upper case": {"Classes.txt": "cat\nwash bear\n", "a.txt": LINE, "a.png": ""},
        "names of Label Studio's notes": {"notes.json": NOTES, "labels/a.txt": LINE, "images/a.png": ""},
        "a folder of pictures of another name": {
            "labels/classes.txt": "cat\nwash bear\n",
            "labels/a.txt": LINE,
            "imgs/a.png": "",
        },
        "pictures and labels in a folder": {"obj.names": "cat\nwash bear\n", "data/a.txt": LINE, "data/a.png": ""},
        "mark of byte order and Windows' ends of lines": {
            "obj.data": "\ufeffclasses = 2\r\ntrain = data\\train.txt\r\nnames = data\\obj.names\r\n",
            "obj.names": "\ufeffcat\r\nwash bear\r\n",
            "train.txt": "data\\obj_train_data\\a.png\r\n",
            "obj_train_data/a.txt": LINE,
            "obj_train_data/a.png": "",
        },
    }.items(),
    ids=lambda case: case[0],
)
def test_exports_that_differ_a_little(tmp_path: Path, files: tuple[str, dict[str, str]]) -> None:
    write(tmp_path, files[1])
    assert format_of(tmp_path) == "darknet"
    assert boxes(tmp_path) == [BOX]


def test_of_several_exports_in_a_folder_one_is_asked_for(tmp_path: Path) -> None:
    for task in ("task1", "task2"):
        write(tmp_path / task, DATA | dict.fromkeys(PICTURES, ""))
    with pytest.raises(DataError, match=r"give one of its folders: task1, task2"):
        read_dataset(tmp_path)


def test_labels_that_come_without_their_pictures(tmp_path: Path) -> None:
    write(tmp_path / "export", DATA)
    write(tmp_path / "mine", dict.fromkeys(("x/a.png", "b.png", "c.png"), ""))
    assert boxes(f"{tmp_path}/export#train", images=tmp_path / "mine") == [BOX, []]
    with pytest.raises(DataError, match=r"images not found"):
        read_dataset(f"{tmp_path}/export#train")


@pytest.mark.parametrize("extra", ["notes.json", ""])
def test_label_studios_folders_and_labelimgs(tmp_path: Path, extra: str) -> None:
    notes = (
        {extra: '{"categories": [{"id": 0, "name": "cat"}], "info": {"contributor": "Label Studio"}}'} if extra else {}
    )
    apart = {"classes.txt": "cat\nwash bear\n", "images/1a2b3c4d-a.png": "", "labels/1a2b3c4d-a.txt": LINE}
    write(tmp_path / "apart", apart | notes)
    assert format_of(tmp_path / "apart") == "darknet"
    assert boxes(tmp_path / "apart") == boxes(tmp_path / "apart" / "classes.txt") == [BOX]
    write(tmp_path / "beside", {"classes.txt": "cat\nwash bear\n", "a.png": "", "a.txt": LINE, "b.png": ""})
    assert boxes(tmp_path / "beside") == [BOX, []]
    write(tmp_path / "inside", {"labels/classes.txt": "cat\nwash bear\n", "images/a.png": "", "labels/a.txt": LINE})
    assert boxes(tmp_path / "inside") == [BOX]


def test_names_of_uploaded_files_lose_their_prefix(tmp_path: Path) -> None:
    write(tmp_path / "export", {"classes.txt": "cat\nwash bear\n", "labels/1a2b3c4d-a.txt": LINE})
    write(tmp_path / "mine", {"a.png": ""})
    assert boxes(tmp_path / "export", images=tmp_path / "mine") == [BOX]


def test_folders_of_parts_are_splits(tmp_path: Path) -> None:
    parts = {
        f"{kind}/{part}/a.{end}": LINE
        for part in ("train", "val")
        for kind, end in (("images", "png"), ("labels", "txt"))
    }
    write(tmp_path, {"classes.txt": "cat\nwash bear\n"} | parts)
    assert boxes(f"{tmp_path}#val") == [BOX]


def test_what_a_list_lacks_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"classes.txt": "cat\n\ndog\n", "a.png": "", "a.txt": LINE})
    with pytest.raises(DataError, match=r"classes\.txt: expected one class name per line, got a blank line"):
        read_dataset(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match=r"a\.txt: line 1: class 1 is not one of the 1 names of classes\.txt"):
        read_dataset(tmp_path)
