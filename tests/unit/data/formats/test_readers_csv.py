"""Tables of boxes: columns by name and by value, separators, conventions, classes and images without boxes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data.findings import Findings
from deixis.data.formats import format_of, read_dataset
from deixis.errors import DataError
from deixis.records import Dataset

RECOGNISED = {
    "csv": {"labels.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,1,1,x,0,0,1,1\n", "a.jpg": ""},
    "csv without names": {"boxes.csv": "a.jpg,1,2,3,4,cat\n"},
    "csv of Kaggle": {"train.csv": 'image_id,width,height,bbox,source\na,9,9,"[1, 2, 3, 4]",x\n'},
}
SIZE = (100, 80)  # width, height


def example(folder: Path) -> None:
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for number, name in enumerate(("cat", "red bird", "größe"), start=1):
        Image.new("RGB", SIZE).save(folder / f"{number}.png")
        lines += [f"{number}.png,100,80,{name},10,20,40,30"]
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(folder: Path, text: str, images: tuple[str, ...] = ("a.png", "b.png"), **files: str) -> tuple[Dataset, str]:
    """The data set of a table beside two pictures of 100x80, and what was said."""
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(folder / image)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    (folder / "boxes.csv").write_text(text, encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = read_dataset(folder / "boxes.csv")
    assert format_of(folder) == "csv"
    said = [str(warning.message) for warning in caught if "without the folders" not in str(warning.message)]
    assert len(said) <= 1
    return dataset, "".join(said)


def boxes(dataset: Dataset) -> list[list[list[float]]]:
    return [np.round(dataset[i].instances.boxes_xyxy_px, 6).tolist() for i in range(len(dataset))]


A, B = [10.0, 20.0, 40.0, 30.0], [50.0, 40.0, 90.0, 70.0]  # not read as sizes: 90 + 50 > 100
TABLES = {
    "tensorflow": (
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,100,80,cat,10,20,40,30\nb.png,100,80,dog,50,40,90,70\n",
        "",
    ),
    "retinanet": ("some/where/a.png,10,20,40,30,cat\nsome/where/b.png,50,40,90,70,dog\n", "corners"),
    "vott": (
        '"image","xmin","ymin","xmax","ymax","label"\n"a.png",10.0,20.0,40.0,30.0,"cat"\n"b.png",50,40,90,70,"dog"\n',
        "",
    ),
    "automl": (
        "TRAIN,gs://bucket/a.png,cat,0.1,0.25,,,0.4,0.375,,\nTRAIN,gs://bucket/b.png,dog,.5,.5,,,.9,.875,,\n",
        "shares of the image, corners",
    ),
    "vertex, four corners": (
        "gs://b/a.png,cat,0.1,0.25,0.4,0.25,0.4,0.375,0.1,0.375\ngs://b/b.png,dog,.5,.5,.9,.5,.9,.875,.5,.875\n",
        "shares",
    ),
    "semicolons, decimal commas": (
        "file;label;x;y;w;h\na.png;cat;10,0;20,0;30,0;10,0\nb.png;dog;50;40;40;30\n",
        "columns are separated by semicolons",
    ),
    "tabs": (
        "image_path\tclass\tx_min\ty_min\tx_max\ty_max\na.png\tcat\t10\t20\t40\t30\nb.png\tdog\t50\t40\t90\t70\n",
        "separated by tabs",
    ),
    "centres": (
        "filename,label,x_center,y_center,width,height\na.png,cat,25,25,30,10\nb.png,dog,70,55,40,30\n",
        "",
    ),
    "centres in shares": (
        "filename,label,cx,cy,w,h\na.png,cat,.25,.3125,.3,.125\nb.png,dog,.7,.6875,.4,.375\n",
        "shares of the image, centre",
    ),
    "box as text": (
        'image_id,width,height,bbox,label\na,100,80,"[10, 20, 30, 10]",cat\nb,100,80,"[50, 40, 40, 30]",dog\n',
        "boxes read as [x, y, width, height]",
    ),
    "corners as text": (
        'image_id,bbox,label\na,"[10, 20, 40, 30]",cat\nb,"[50, 40, 90, 70]",dog\n',
        "boxes read as corners",
    ),
    "box as JSON": (
        'image,bbox,label\na.png,"{""x"": 10, ""y"": 20, ""w"": 30, ""h"": 10}",cat\n'
        'b.png,"{""x"": 50, ""y"": 40, ""w"": 40, ""h"": 30}",dog\n',
        "[x, y, width, height]",
    ),
    "sizes without names": ("a.png,10,20,30,10,cat\nb.png,50,40,40,30,dog\n", "boxes read as [x, y, width, height]"),
    "size before the box": ("a.png,100,80,10,20,40,30,cat\nb.png,100,80,50,40,90,70,dog\n", "corners"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_layout_gives_the_same_boxes(tmp_path: Path, kind: str) -> None:
    text, said = TABLES[kind]
    dataset, heard = read(tmp_path, text)
    assert boxes(dataset) == [[A], [B]]
    assert dataset.vocabulary.names == ("cat", "dog")
    assert [dataset[i].instances.class_ids.tolist() for i in range(2)] == [[0], [1]]
    assert said in heard
    assert bool(said) == bool(heard)


def test_names_that_say_sizes_hold_though_all_would_fit_as_corners(tmp_path: Path) -> None:
    dataset, said = read(tmp_path, "file,label,x,y,w,h\na.png,cat,10,20,40,30\nb.png,cat,1,2,3,4\n")
    assert boxes(dataset) == [[[10, 20, 50, 50]], [[1, 2, 4, 6]]]
    assert not said
    _, said = read(tmp_path, "a.png,10,20,40,30,cat\nb.png,1,2,3,4,cat\n")
    assert "boxes read as corners [x1, y1, x2, y2], though all would fit as [x, y, width, height]" in said


@pytest.mark.parametrize("empty", ["b.png,,,,,", "b.png,,,,,cat"])
def test_images_without_boxes_are_kept(tmp_path: Path, empty: str) -> None:
    dataset, _ = read(tmp_path, f"a.png,10,20,40,30,cat\n{empty}\n")
    assert [len(dataset[i].instances) for i in range(2)] == [1, 0]


@pytest.mark.parametrize("empty", ["", "[]", "nan"])
def test_an_empty_text_is_no_box(tmp_path: Path, empty: str) -> None:
    dataset, _ = read(tmp_path, f'image_id,bbox\na,"[10, 20, 90, 50]"\nb,{empty}\n')
    assert [len(dataset[i].instances) for i in range(2)] == [1, 0]


def test_several_boxes_in_one_text(tmp_path: Path) -> None:
    dataset, _ = read(tmp_path, 'image_id,bbox\na,"[[10, 20, 30, 10], [50, 40, 40, 30]]"\nb,"10 20 30 10"\n')
    assert boxes(dataset) == [[A, B], [A]]


def test_without_a_class_column_there_is_one_class(tmp_path: Path) -> None:
    dataset, said = read(tmp_path, "filename,xmin,ymin,xmax,ymax\na.png,10,20,40,30\nb.png,50,40,90,70\n")
    assert dataset.vocabulary.names == ("object",)
    assert "has no column of classes; every object is 'object'" in said


NUMBERS = "filename,class_id,xmin,ymin,xmax,ymax\na.png,0,10,20,40,30\nb.png,2,50,40,90,70\n"


def test_classes_that_are_numbers_are_named_by_a_list(tmp_path: Path) -> None:
    dataset, said = read(tmp_path, NUMBERS)
    assert dataset.vocabulary.names == ("0", "2")
    assert "classes have numbers but no names; name them in a file classes.txt" in said
    dataset, said = read(tmp_path, NUMBERS, classes_txt="cat\nbird\ndog\n")
    assert dataset.vocabulary.names == ("cat", "bird", "dog")
    assert [int(dataset[i].instances.class_ids[0]) for i in range(2)] == [0, 2]
    assert not said
    with pytest.raises(DataError, match=r"class 2 is not among the 2 names of classes.txt"):
        read(tmp_path, NUMBERS, classes_txt="cat\nbird\n")
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "label_map.pbtxt").write_text("item { id: 0 name: 'cat' }\nitem {\n id: 2\n name: 'dog'\n}\n")
    assert read(tmp_path, NUMBERS)[0].vocabulary.names == ("cat", "dog")
    (tmp_path / "label_map.pbtxt").unlink()
    (tmp_path / "classes.csv").write_text("cat,0\ndog,2\n")
    assert read(tmp_path, NUMBERS)[0].vocabulary.names == ("cat", "dog")


def test_sets_of_rows_are_splits(tmp_path: Path) -> None:
    text = "set,filename,label,xmin,ymin,xmax,ymax\nTRAINING,a.png,cat,10,20,40,30\nVALIDATION,b.png,cat,50,40,90,70\n"
    with pytest.raises(DataError, match=r"has the splits train, val; name one, as in .*boxes.csv#train"):
        read(tmp_path, text)
    assert boxes(read_dataset(f"{tmp_path / 'boxes.csv'}#val")) == [[B]]
    with pytest.raises(DataError, match=r"has no split 'test', only train, val"):
        read_dataset(f"{tmp_path / 'boxes.csv'}#test")


@pytest.mark.parametrize("names", [("train/a.csv", "valid/b.csv"), ("train_labels.csv", "labels-val.csv")])
def test_files_and_folders_named_after_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, picture, box in zip(names, ("a.png", "b.png"), ("10,20,40,30", "50,40,90,70"), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", SIZE).save((tmp_path / name).parent / picture)
        (tmp_path / name).write_text(f"filename,class,xmin,ymin,xmax,ymax\n{picture},cat,{box}\n")
    (tmp_path / "sample_submission.csv").write_text("image_id,PredictionString\na,1.0 0 0 50 50\n")
    with pytest.raises(DataError, match=r"has the splits .*; name one, as in"):
        read_dataset(tmp_path)
    assert boxes(read_dataset(f"{tmp_path}#val")) == [[B]]
    assert boxes(read_dataset(tmp_path / names[0])) == [[A]]
    with pytest.raises(DataError, match=r"has no split 'test', only"):
        read_dataset(tmp_path, split="test")


def test_names_without_suffix_and_pictures_in_a_folder_of_the_tables_name(tmp_path: Path) -> None:
    dataset, _ = read(tmp_path, 'image_id,bbox\na,"[50, 40, 40, 30]"\n', images=("boxes/a.png",))
    assert str(dataset[0].image).endswith("boxes/a.png")


FAULTS = {
    "numbers": ("filename,xmin,ymin,xmax,ymax\na.png,1,2,x,4\n", r"line 2: expected four numbers of a box, got '1, 2"),
    "text": ('image_id,bbox\na.png,"[1, 2, 3]"\n', r"line 2: expected four numbers of a box, got '\[1, 2, 3\]'"),
    "class": ("filename,class,xmin,ymin,xmax,ymax\na.png,,1,2,3,4\n", r"line 2: has a box without a class"),
    "image": ("filename,xmin,ymin,xmax,ymax\n,1,2,3,4\n", r"line 2: expected 1 values and more"),
    "missing": ("filename,xmin,ymin,xmax,ymax\nz.png,1,2,3,4\n", r"1 of 1 image files not found, the first is 'z.png'"),
    "size": ("filename,width,height,xmin,ymin,xmax,ymax\na.png,80,100,1,2,3,4\n", r"annotated as 80x100 pixels"),
    "crowd": ("filename,xmin,ymin,xmax,ymax,iscrowd\na.png,1,2,3,4\n", r"line 2: expected 6 values and more, got 5"),
    "empty": ("filename,xmin,ymin,xmax,ymax\n", r"has no row of an image"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(tmp_path: Path, fault: str) -> None:
    text, said = FAULTS[fault]
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*has no column of classes")
def test_what_cannot_be_used_is_a_finding(tmp_path: Path) -> None:
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    rows = "a.png,1,2,x,4\na.png,10,20,40,30\nz.png,1,2,3,4\n"
    (tmp_path / "boxes.csv").write_text("filename,xmin,ymin,xmax,ymax\n" + rows)
    findings = Findings()
    dataset = read_dataset(tmp_path, findings=findings)
    assert boxes(dataset) == [[A]]
    assert [finding.kind for finding in findings.found] == ["record_malformed", "image_missing"]


def test_tables_of_other_things_are_none(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("epoch,loss\n1,0.5\n")
    (tmp_path / "scores.csv").write_text("image,score\na.png,0.5\n")
    with pytest.raises(DataError, match=r"no annotations of a known format"):
        read_dataset(tmp_path)


def test_makesense_without_names_writes_sizes(tmp_path: Path) -> None:
    dataset, said = read(tmp_path, "cat,10,20,30,10,a.png,100,80\ndog,1,2,3,4,b.png,100,80\n")
    assert boxes(dataset) == [[[10, 20, 40, 30]], [[1, 2, 4, 6]]]
    assert said == ""


def test_boxes_as_named_numbers_in_a_column_of_annotations(tmp_path: Path) -> None:
    text = """image_id,annotations\na,"[{'x': 10, 'y': 20, 'width': 95, 'height': 10}]"\nb,[]\n"""
    dataset, _ = read(tmp_path, text.replace("95", "30"))
    assert boxes(dataset) == [[[10, 20, 40, 30]], []]


def test_text_of_another_encoding_is_named(tmp_path: Path) -> None:
    line = "a.png,100,80,größe,10,20,40,30\n"
    (tmp_path / "boxes.csv").write_bytes(f"filename,width,height,class,xmin,ymin,xmax,ymax\n{line}".encode("latin-1"))
    with pytest.raises(DataError, match=r"boxes.csv: is no UTF-8 text"):
        read_dataset(tmp_path)


def test_a_list_of_all_names_gives_their_order(tmp_path: Path) -> None:
    text = "filename,class,xmin,ymin,xmax,ymax\na.png,cat,10,20,40,30\nb.png,,,,,\n"
    dataset, _ = read(tmp_path, text, classes_txt="dog\ncat\n")
    assert dataset.vocabulary.names == ("dog", "cat")
    other, _ = read(tmp_path, text, classes_txt="dog\nbird\n")
    assert other.vocabulary.names == ("cat",), "a list of others is none of these"
