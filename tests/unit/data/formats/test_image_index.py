"""Pictures by name or stem: composed and decomposed alike, and none is guessed where several may be meant."""

from __future__ import annotations

import json
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data.findings import Findings
from deixis.data.formats import read_dataset
from deixis.data.formats.annotation_files import ImageIndex
from deixis.data.refer_formats import read_refer
from deixis.errors import DataError

SIZE = (40, 30)  # width, height


def voc(folder: Path, stem: str) -> None:
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    text = f"<annotation><filename></filename><object><name>x</name>{box}</object></annotation>"
    (folder / f"{stem}.xml").write_text(text, encoding="utf-8")


def labelme(folder: Path, stem: str) -> None:
    shape = {"label": "x", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}
    content = {"shapes": [shape], "imagePath": "", "imageData": None}
    (folder / f"{stem}.json").write_text(json.dumps(content))


def openimages(folder: Path, stem: str) -> None:
    text = f"ImageID,LabelName,XMin,YMin,XMax,YMax\n{stem},x,0.1,0.1,0.5,0.5\n"
    file = folder / "boxes.csv"
    file.write_text(file.read_text(encoding="utf-8") + text.split("\n")[1] if file.exists() else text, encoding="utf-8")


def fiftyone(folder: Path, stem: str) -> None:
    file = folder / "labels.json"
    content = json.loads(file.read_text()) if file.exists() else {"classes": ["x"], "labels": {}}
    content["labels"][stem] = [{"label": "x", "bounding_box": [0.1, 0.1, 0.5, 0.5]}]
    file.write_text(json.dumps(content))


def png_masks(folder: Path, stem: str) -> None:
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[5:20, 5:20] = 1
    (folder / "masks").mkdir(exist_ok=True)
    Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")


WRITE: dict[str, Callable[[Path, str], None]] = {
    one.__name__: one for one in (voc, labelme, openimages, fiftyone, png_masks)
}


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).integers(0, 255, (*SIZE[::-1], 3), np.uint8)
        Image.fromarray(noise).save(folder / name)


def quietly(folder: Path, format: str, findings: Findings | None = None) -> list[str]:
    """The names of the images read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dataset = read_dataset(folder, format=format, findings=findings)
    return [Path(str(dataset[index].image)).name for index in range(len(dataset))]


@pytest.mark.parametrize("file_form", ["NFC", "NFD"])
@pytest.mark.parametrize("asked_form", ["NFC", "NFD"])
@pytest.mark.parametrize("format", WRITE)
def test_composed_and_decomposed_names_are_one(tmp_path: Path, format: str, asked_form: str, file_form: str) -> None:
    name = unicodedata.normalize(file_form, "Größe é.jpg")  # type: ignore[arg-type]
    pictures(tmp_path / "images", name)
    WRITE[format](tmp_path, unicodedata.normalize(asked_form, "Größe é"))  # type: ignore[arg-type]
    assert quietly(tmp_path, format) == [name]


@pytest.mark.parametrize("asked_form", ["NFC", "NFD"])
def test_composed_and_decomposed_names_of_masks_are_one(tmp_path: Path, asked_form: str) -> None:
    pictures(tmp_path / "images", "é.jpg")
    png_masks(tmp_path, "m")
    image_id = unicodedata.normalize(asked_form, "é")  # type: ignore[arg-type]
    text = f"MaskPath,ImageID,LabelName\nm.png,{image_id},cat\n"
    (tmp_path / "a-object-segmentation.csv").write_text(text, encoding="utf-8")
    assert len(read_refer(tmp_path, format="openimages_masks")) == 1


@pytest.mark.parametrize("format", WRITE)
def test_of_several_pictures_of_one_stem_none_is_guessed(tmp_path: Path, format: str) -> None:
    pictures(tmp_path / ("data" if format == "fiftyone" else "images"), "a.jpg", "a.png", "b.jpg")
    for stem in "ab":
        WRITE[format](tmp_path, stem)
    with pytest.raises(DataError, match=r"a\.jpg: 'a' may be this file or a\.png; remove or rename one of them"):
        quietly(tmp_path, format)
    findings = Findings()
    assert quietly(tmp_path, format, findings) == ["b.jpg"]
    assert ["may be this file" in found.message for found in findings.found if found.severity == "error"] == [True]
    assert not [found for found in findings.found if found.kind == "image_missing"]


def test_the_name_as_it_is_written_goes_before_those_that_are_alike(tmp_path: Path) -> None:
    pictures(tmp_path, "A.JPG", "a.jpg", "b.JPG", "b.Jpg", "C.png", "c.png")
    index = ImageIndex([tmp_path, tmp_path / "none"])
    assert index.find("folder/a.jpg", "") == tmp_path / "a.jpg"
    assert index.find("", "c") == tmp_path / "c.png"
    assert index.find("d.jpg", "d") is None
    with pytest.raises(DataError, match=r"'b.jpg' may be this file or b\.Jpg"):
        index.find("b.jpg", "b")


def test_an_earlier_folder_wins(tmp_path: Path) -> None:
    pictures(tmp_path / "one", "a.png")
    pictures(tmp_path / "two", "a.jpg", "a.png")
    assert ImageIndex([tmp_path / "one", tmp_path / "two"]).find("", "a") == tmp_path / "one" / "a.png"
