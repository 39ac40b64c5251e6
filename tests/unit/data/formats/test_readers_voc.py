"""Pascal VOC: folders as tools lay them out; faults in one line that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data.formats import read_dataset
from deixis.data.formats.voc.read import find_xml_files, read_voc
from deixis.data.pixels.images import load
from deixis.errors import DataError

HEIGHT, WIDTH = 40, 60


def xml_object(name: str = "cat", box: tuple[object, ...] = (11, 1, 20, 40), extra: str = "") -> str:
    """A box 10 wide and 40 high in VOC's counting."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    corners = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, box, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def xml_file(*objects: str, file_name: str = "a.jpg", size: str | None = None) -> str:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>" if size is None else size
    return f"<annotation><filename>{file_name}</filename>{size}{''.join(objects)}</annotation>"


def write(folder: Path, name: str, xml: str, image: str | None = None) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(xml)
    if image is not None:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / image)
    return folder


def test_boxes_count_pixels_from_one_and_include_the_last(tmp_path: Path) -> None:
    dataset = read_voc(write(tmp_path, "a.xml", xml_file(xml_object()), "a.jpg"))
    np.testing.assert_array_equal(dataset[0].instances.boxes_xyxy_px, [[10, 0, 20, 40]])
    np.testing.assert_array_equal(dataset[0].instances.areas_px, [400])
    assert dataset[0].size_hw == (HEIGHT, WIDTH)
    assert dataset[0].image_id == 1
    assert dataset[0].source == "a.xml"
    assert dataset.name == tmp_path.name


def test_a_whole_image_box_stays_whole_whether_counted_from_one_or_zero(tmp_path: Path) -> None:
    boxes = [xml_object(box=(1, 1, WIDTH, HEIGHT)), xml_object(box=(0, 0, WIDTH, HEIGHT))]
    dataset = read_voc(write(tmp_path, "a.xml", xml_file(*boxes), "a.jpg"))
    np.testing.assert_array_equal(dataset[0].instances.boxes_xyxy_px, [[0, 0, WIDTH, HEIGHT]] * 2)


def test_names_are_sorted_and_difficult_objects_kept(tmp_path: Path) -> None:
    objects = [xml_object("dog"), xml_object(" cat "), xml_object("ant", extra="<difficult>1</difficult>")]
    dataset = read_voc(write(tmp_path, "a.xml", xml_file(*objects), "a.jpg"))
    assert dataset.vocabulary.names == ("ant", "cat", "dog")
    assert dataset[0].instances.class_ids.tolist() == [2, 1, 0]
    assert not dataset[0].instances.is_crowd.any()


def test_parts_of_an_object_are_no_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    dataset = read_voc(write(tmp_path, "a.xml", xml_file(xml_object(extra=part)), "a.jpg"))
    assert dataset.vocabulary.names == ("cat",)
    np.testing.assert_array_equal(dataset[0].instances.boxes_xyxy_px, [[10, 0, 20, 40]])


def test_an_image_without_objects_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "a.xml", xml_file(xml_object()), "a.jpg")
    write(tmp_path, "b.xml", xml_file(file_name="b.jpg"), "b.jpg")
    assert [len(sample.instances) for sample in read_voc(tmp_path).samples] == [1, 0]


@pytest.mark.parametrize(
    ("xml", "image"),
    [
        ("a.xml", "a.jpg"),
        ("annotations/a.xml", "images/a.jpg"),
        ("Annotations/a.xml", "JPEGImages/a.jpg"),
        ("annotations/a.xml", "annotations/a.jpg"),
        ("a.xml", "images/A.JPG"),
        ("a.xml", "a.png"),
        ("a.xml", "a.tif"),
    ],
)
def test_images_are_found_where_tools_put_them(tmp_path: Path, xml: str, image: str) -> None:
    dataset = read_dataset(write(tmp_path, xml, xml_file(xml_object()), image))
    assert dataset[0].image == tmp_path / image
    load(dataset[0])


def test_the_annotations_folder_itself_may_be_given(tmp_path: Path) -> None:
    write(tmp_path, "Annotations/a.xml", xml_file(xml_object()), "JPEGImages/a.jpg")
    assert read_dataset(tmp_path / "Annotations")[0].image == tmp_path / "JPEGImages" / "a.jpg"


def test_the_name_in_the_file_wins_over_the_name_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, "a.xml", xml_file(xml_object(), file_name="C:\\old\\B.jpg"), "a.jpg")
    write(tmp_path, "b.xml", xml_file(xml_object(), file_name="missing.jpg"), "b.jpg")
    assert [Path(str(sample.image)).name for sample in read_voc(tmp_path).samples] == ["b.jpg", "b.jpg"]


def test_images_in_a_folder_given(tmp_path: Path) -> None:
    write(tmp_path, "xml/a.xml", xml_file(xml_object()), "pictures/a.jpg")
    assert read_dataset(tmp_path / "xml", images=tmp_path / "pictures")[0].image == tmp_path / "pictures" / "a.jpg"


def test_a_size_that_is_absent_or_zero_is_read_from_the_image(tmp_path: Path) -> None:
    zero = "<size><width>0</width><height>0</height></size>"
    write(tmp_path, "a.xml", xml_file(xml_object(), size=""), "a.jpg")
    write(tmp_path, "b.xml", xml_file(xml_object(), file_name="b.jpg", size=zero), "b.jpg")
    assert [sample.size_hw for sample in read_voc(tmp_path).samples] == [(HEIGHT, WIDTH)] * 2


def test_boxes_without_area_inside_the_image_are_dropped_with_a_count(tmp_path: Path) -> None:
    boxes = [(70, 1, 80, 20), (-30, 10, -20, 30), (50, 30, 90, 90)]
    write(tmp_path, "a.xml", xml_file(*(xml_object(box=box) for box in boxes)), "a.jpg")
    with pytest.warns(UserWarning, match=r"dropped 2 boxes .* the first in a.xml"):
        dataset = read_voc(tmp_path)
    np.testing.assert_array_equal(dataset[0].instances.boxes_xyxy_px, [[49, 29, WIDTH, HEIGHT]])


SWAPPED = f"<size><width>{HEIGHT}</width><height>{WIDTH}</height></size>"
FAULTS = {
    "malformed": ("<annotation><object>", "cannot read as XML"),
    "empty": ("", "cannot read as XML"),
    "another root": ("<gpx/>", "the root is <gpx>, not Pascal VOC's <annotation>"),
    "no name": (xml_file(xml_object("")), "object 1: has no <name>"),
    "no box": (
        xml_file(xml_object(), "<object><name>cat</name></object>"),
        "object 2: <xmin> must be a number, got None",
    ),
    "text": (xml_file(xml_object(box=(1, "left", 3, 4))), "object 1: <ymin> must be a number, got 'left'"),
    "nan": (xml_file(xml_object(box=(1, 2, 3, "nan"))), "object 1: <ymax> must be a number, got 'nan'"),
    "size": (xml_file(xml_object(), size=SWAPPED), "states 40x60 pixels .* but a.jpg has 60x40"),
    "size text": (xml_file(xml_object(), size="<size><width>x</width></size>"), "size: <height> must be a number"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_clear_line(tmp_path: Path, name: str) -> None:
    xml, message = FAULTS[name]
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(write(tmp_path, "a.xml", xml, "a.jpg"))
    assert "\n" not in str(caught.value)
    assert "a.xml" in str(caught.value)


def test_missing_images_are_counted(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, f"annotations/{number}.xml", xml_file(xml_object(), file_name=f"{number}.jpg"))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "1.jpg")
    with pytest.raises(DataError, match=r"2 of 3 image files not found, the first is '0.jpg'; looked in .*images"):
        read_voc(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    assert find_xml_files(tmp_path) == []
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match="no Pascal VOC XML files"):
            read_voc(path)
    write(tmp_path, "a.xml", xml_file(), "a.jpg")
    with pytest.raises(DataError, match="none of its 1 XML files has an object"):
        read_voc(tmp_path)


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    write(tmp_path, "train/a.xml", xml_file(xml_object()), "train/a.jpg")
    write(tmp_path, "test/a.xml", xml_file(xml_object()), "test/a.jpg")
    with pytest.raises(DataError, match="give one of its folders: test, train"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("folder", "images", "objects", "names"),
    [
        ("raccoon_voc", 200, 217, ("raccoon",)),
        ("playing_cards_voc/train", 150, 178, ("ace", "jack", "king", "nine", "queen", "ten")),
        ("playing_cards_voc/test", 67, 143, ("ace", "jack", "king", "nine", "queen", "ten")),
        ("tree_crowns_aerial_voc", 3, 377, ("Alive", "Dead", "Tree")),
    ],
)
def test_real_folders(shared_data: Path, folder: str, images: int, objects: int, names: tuple[str, ...]) -> None:
    dataset = read_dataset(shared_data / folder)
    assert len(dataset) == images
    assert dataset.vocabulary.names == names
    assert sum(len(dataset[i].instances) for i in range(images)) == objects
    for i in range(0, images, 20):
        assert load(dataset[i]).size_hw == dataset[i].size_hw
