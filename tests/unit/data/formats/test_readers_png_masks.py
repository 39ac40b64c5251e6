"""PNG masks: values as classes or as objects, colours, VOC's two folders, and masks that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.findings import Findings
from deixis.data.formats import format_of, read_dataset
from deixis.data.refer_formats import read_refer
from deixis.errors import DataError

WIDTH, HEIGHT = 40, 20


def mask(*parts: tuple[int, int, int, int, int]) -> np.ndarray:
    """Values in boxes [x1, y1, x2, y2]."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for value, x1, y1, x2, y2 in parts:
        pixels[y1:y2, x1:x2] = value
    return pixels


TWO_REGIONS = mask((1, 2, 2, 10, 8), (1, 20, 2, 30, 8))
CLASSES = mask((1, 2, 2, 10, 8), (2, 20, 2, 30, 8), (2, 20, 12, 25, 16), (255, 35, 0, 36, 3))


def write(folder: Path, *masks: np.ndarray, place: str = "masks", images: str = "images", **files: str) -> Path:
    (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / images).mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(masks):
        image = Image.fromarray(pixels)
        if place.startswith("Segmentation"):
            image.putpalette([value for index in range(256) for value in (index, 0, 255 - index)])
        image.save(folder / place / f"{number}.png")
        photo = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(photo).save(folder / images / f"{number}.jpg")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


def example(folder: Path) -> None:
    write(folder, CLASSES, TWO_REGIONS, classes_txt="cat\nred bird\ngröße\n")


def recognised() -> dict[str, dict[str, Any]]:
    from io import BytesIO

    file = BytesIO()
    Image.fromarray(TWO_REGIONS).save(file, "PNG")
    picture = BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(picture, "JPEG")
    return {"png_masks by its folder": {"masks/a.png": file.getvalue(), "images/a.jpg": picture.getvalue()}}


RECOGNISED = recognised()


def boxes(dataset: Any) -> list[Any]:
    return [dataset[i].instances.boxes_xyxy_px.tolist() for i in range(len(dataset))]


def names(dataset: Any, index: int = 0) -> list[str]:
    return [dataset.vocabulary.names[i] for i in dataset[index].instances.class_ids]


@pytest.mark.parametrize(
    ("place", "images", "name"),
    [("Masks", "Images", "0.PNG"), ("train_masks", "train", "0.png"), ("masks", "images", "0_mask.tif")],
)
def test_other_spellings_of_folders_and_files(tmp_path: Path, place: str, images: str, name: str) -> None:
    write(tmp_path, CLASSES, place=place, images=images, classes_txt="cat\ndog\n")
    with Image.open(tmp_path / place / "0.png") as image:
        image.load()
    (tmp_path / place / "0.png").unlink()
    image.save(tmp_path / place / name)
    assert format_of(tmp_path) == "png_masks"
    assert names(read_dataset(tmp_path)) == ["cat", "dog", "dog"]


@pytest.mark.parametrize("value", [1, 255])
def test_one_value_is_drawn_regions(tmp_path: Path, value: int) -> None:
    write(tmp_path, TWO_REGIONS * np.uint8(value), mask())
    for place in (tmp_path, tmp_path / "masks"):
        assert format_of(place) == "png_masks"
        with pytest.warns(UserWarning, match=r"no names of classes; every region is an object of the class 'object'"):
            dataset = read_dataset(place)
    assert boxes(dataset) == [[[2, 2, 10, 8], [20, 2, 30, 8]], []]
    assert dataset[0].instances.masks_rle is not None
    np.testing.assert_array_equal(sum(map(coco_mask.decode, dataset[0].instances.masks_rle)), TWO_REGIONS)


def test_several_values_without_names_are_objects(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"each of the values 1, 2, 255, … is an object of the class 'object'"):
        dataset = read_dataset(write(tmp_path, CLASSES))
    assert boxes(dataset) == [[[2, 2, 10, 8], [20, 2, 30, 16]]]


@pytest.mark.parametrize("text", ["cat\ndog\n", "background\ncat\ndog\n"])
def test_values_that_a_list_names_are_classes(tmp_path: Path, text: str) -> None:
    dataset = read_dataset(write(tmp_path, CLASSES, classes_txt=text))
    assert dataset.vocabulary.names == ("cat", "dog")
    assert boxes(dataset) == [[[2, 2, 10, 8], [20, 2, 30, 8], [20, 12, 25, 16]]]
    assert names(dataset) == ["cat", "dog", "dog"]
    assert read_dataset(tmp_path, masks=False)[0].instances.masks_rle is None
    assert len(read_refer(tmp_path)) == 1


def test_colours_are_named_by_the_list_of_cvat(tmp_path: Path) -> None:
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[2:8, 2:10], colours[2:8, 20:30] = (250, 50, 83), (51, 221, 255)
    text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:51,221,255::\n"
    dataset = read_dataset(write(tmp_path, colours, labelmap_txt=text))
    assert boxes(dataset) == [[[2, 2, 10, 8], [20, 2, 30, 8]]]
    assert names(dataset) == ["cat", "dog"]
    for file in (tmp_path / "masks").iterdir():
        with Image.open(file) as image:
            image.convert("P", palette=Image.Palette.ADAPTIVE).save(file)  # as Datumaro writes it
    assert names(read_dataset(tmp_path)) == ["cat", "dog"]


def test_objects_and_classes_in_two_folders(tmp_path: Path) -> None:
    objects = mask((1, 2, 2, 10, 8), (2, 20, 2, 30, 16), (255, 35, 0, 36, 3))
    write(tmp_path, objects, place="SegmentationObject", images="JPEGImages", classes_txt="background\ncat\ndog\n")
    write(tmp_path, CLASSES, place="SegmentationClass", images="JPEGImages")
    dataset = read_dataset(tmp_path)
    assert boxes(dataset) == [[[2, 2, 10, 8], [20, 2, 30, 16]]]
    assert names(dataset) == ["cat", "dog"]


def test_endings_of_mask_files(tmp_path: Path) -> None:
    write(tmp_path, TWO_REGIONS, classes_txt="cat\n")
    (tmp_path / "masks/0.png").rename(tmp_path / "masks/0_mask.png")
    assert len(read_dataset(tmp_path)[0].instances) == 2


def test_a_mask_per_object(tmp_path: Path) -> None:
    write(tmp_path, mask((255, 2, 2, 10, 8), (255, 12, 2, 14, 8)), mask((255, 20, 2, 30, 8)))
    (tmp_path / "masks/1.png").rename(tmp_path / "masks/0_1.png")
    (tmp_path / "masks/0.png").rename(tmp_path / "masks/0_0.png")
    (tmp_path / "images/1.jpg").unlink()
    with pytest.warns(UserWarning, match=r"has no names of classes"):
        assert boxes(read_dataset(tmp_path)) == [[[2, 2, 14, 8], [20, 2, 30, 8]]]


def test_splits_are_folders_of_masks_and_of_images(tmp_path: Path) -> None:
    for split, pixels in (("train", TWO_REGIONS), ("val", mask((1, 2, 2, 10, 8)))):
        write(tmp_path, pixels, place=f"masks/{split}", images=f"images/{split}", classes_txt="cat\n")
    with pytest.raises(DataError, match=r"has the splits train, val; name one, as in .*#train"):
        read_dataset(tmp_path)
    assert boxes(read_dataset(f"{tmp_path}#val")) == [[[2, 2, 10, 8]]]
    assert len(read_dataset(tmp_path / "masks/train")[0].instances) == 2
    with pytest.raises(DataError, match=r"has no split 'test', only train, val"):
        read_dataset(tmp_path, split="test")


def test_photographs_are_no_masks(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    with pytest.raises(DataError, match=r"masks: is a folder of PNG files, but not masks"):
        read_dataset(write(tmp_path, photo))


def test_faults_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0.png: value 2 is not among those of the 1 classes \(\[1\]\)"):
        read_dataset(write(tmp_path / "a", CLASSES, classes_txt="cat\n"))
    write(tmp_path / "b", TWO_REGIONS, TWO_REGIONS, classes_txt="cat\n")
    Image.new("L", (WIDTH, WIDTH)).save(tmp_path / "b/masks/1.png")
    with pytest.raises(DataError, match=r"1.png: has \(40, 40\) \(height, width\), its image \(20, 40\)"):
        read_dataset(tmp_path / "b")
    findings = Findings()
    assert len(read_dataset(tmp_path / "b", findings=findings)) == 1
    assert [finding.kind for finding in findings.found] == ["mask_malformed"]
    (tmp_path / "b/images/1.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 image files not found, the first is '1.png'"):
        read_dataset(tmp_path / "b")
