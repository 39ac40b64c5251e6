"""CVAT's XML: shapes, subsets, tracks with key frames, frames as files or of a video."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.findings import Findings
from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.cvat.shapes import Shape, between
from deixis.data.formats.writing import write_dataset
from deixis.data.pixels.frames import video_writer
from deixis.data.pixels.images import load
from deixis.errors import DataError
from deixis.records import Dataset, Instances, Sample, SampleList, Vocabulary

WIDTH, HEIGHT = 60, 40
LABELS = (
    "<labels><label><name>dog</name><type>any</type></label><label><name>cat</name></label>"
    "<label><name>limb</name><type>points</type></label><label><name>knee</name><parent>body</parent></label></labels>"
)
RECOGNISED = {
    "cvat": {"annotations.xml": "<annotations><image id='0'/></annotations>", "images/a.jpg": ""},
    "cvat beside": {"annotations/video.xml": "<annotations><track id='0'/></annotations>", "README.md": ""},
}


def write(folder: Path, body: str, task: str = "", pictures: tuple[str, ...] = ("images/a.png",)) -> Path:
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)
    meta = f"<meta><task>{task}{LABELS}</task></meta>"
    file = folder / "annotations.xml"
    file.write_text(
        f"<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version>{meta}{body}</annotations>"
    )
    return file


def image(*shapes: str, name: str = "a.png", more: str = "") -> str:
    return f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}" {more}>{"".join(shapes)}</image>'


def quietly(path: Path | str, **options: object) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return read_dataset(path, **options)  # type: ignore[arg-type]


BOX = '<box label="cat" occluded="0" xtl="10.00" ytl="5.00" xbr="30.00" ybr="15.50" z_order="0"></box>'
TURNED = '<box label="cat" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.00"></box>'
POLYGON = '<polygon label="dog" points="10.0,5.0;30.0,5.0;30.0,25.0"></polygon>'
ELLIPSE = '<ellipse label="dog" cx="20" cy="20" rx="10" ry="5"></ellipse>'
MASK = '<mask label="cat" rle="1, 3, 2" left="4" top="6" width="3" height="2"></mask>'


def test_boxes_of_the_listed_names_in_their_order(tmp_path: Path) -> None:
    file = write(tmp_path, image(BOX))
    assert format_of(file) == format_of(tmp_path) == "cvat"
    dataset = quietly(tmp_path)
    assert dataset.vocabulary.names == ("dog", "cat"), "points and parts of skeletons are no classes"
    assert dataset[0].instances.boxes_xyxy_px.tolist() == [[10, 5, 30, 15.5]]
    assert dataset[0].instances.class_ids.tolist() == [1]
    assert dataset[0].instances.masks_rle is None
    assert dataset[0].size_hw == (HEIGHT, WIDTH)


def test_a_turned_box_is_turned_about_its_centre(tmp_path: Path) -> None:
    objects = quietly(write(tmp_path, image(TURNED)))[0].instances
    np.testing.assert_allclose(objects.boxes_xyxy_px, [[15, 5, 25, 25]])
    np.testing.assert_allclose(objects.areas_px, [200])
    mask = coco_mask.decode(objects.masks_rle[0])
    assert mask.sum() == 200
    assert mask[5:25, 15:25].all()
    slanted = quietly(write(tmp_path, image(TURNED.replace("90.00", "30"))))[0].instances
    x, y = 10 * np.cos(np.pi / 6) + 5 * np.sin(np.pi / 6), 10 * np.sin(np.pi / 6) + 5 * np.cos(np.pi / 6)
    np.testing.assert_allclose(slanted.boxes_xyxy_px, [[20 - x, 15 - y, 20 + x, 15 + y]])


def test_polygons_ellipses_and_masks(tmp_path: Path) -> None:
    file = write(tmp_path, image(POLYGON, ELLIPSE, MASK))
    objects = quietly(file)[0].instances
    np.testing.assert_allclose(objects.boxes_xyxy_px, [[10, 5, 30, 25], [10, 15, 30, 25], [4, 6, 7, 8]])
    assert objects.areas_px[[0, 2]].tolist() == [200, 3]
    mask = coco_mask.decode(objects.masks_rle[2])
    assert np.argwhere(mask).tolist() == [[6, 5], [6, 6], [7, 4]], "row by row from the left top, unset first"
    assert quietly(file, masks=False)[0].instances.masks_rle is None
    assert quietly(write(tmp_path, image(POLYGON, BOX)))[0].instances.masks_rle is None, "a box has none"


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    shapes = ['<polyline label="dog" points="1,1;2,2"/>', '<points label="dog" points="1,1"/>', '<tag label="dog"/>']
    attributes = '<attribute name="colour">red</attribute><attribute name="breed"></attribute>'
    file = write(tmp_path, image(*shapes, BOX.replace("></box>", f">{attributes}</box>")))
    with pytest.warns(UserWarning, match="are read|are not read") as said:
        assert len(read_dataset(file)[0].instances) == 1
    texts = [str(one.message) for one in said]
    assert texts[0].endswith("left out 1 points, 1 polyline, 1 tag; box, polygon, mask, ellipse are read")
    assert texts[1].endswith("2 attributes of objects are not read: breed, colour")


def test_subsets_of_a_project_are_splits(tmp_path: Path) -> None:
    names = ("images/train/a.png", "images/val/a.png")
    body = image(BOX, more='subset="train"') + image(more='subset="val"')
    file = write(tmp_path, body, pictures=names)
    assert [sample.image.parent.name for sample in quietly(file)] == ["train", "val"]  # type: ignore[attr-defined,union-attr]
    assert len(quietly(f"{file}#validation")[0].instances) == 0
    with pytest.raises(DataError, match=r"has no subset 'test', only train, val"):
        read_dataset(f"{file}#test")


WRONG = {
    '<box label="cat" xtl="1" ytl="2" xbr="3"/>': r"image a\.png: shape 1: has no number 'ybr'",
    '<box label="" xtl="1" ytl="2" xbr="3" ybr="4"/>': "has no label",
    '<box label="cat" xtl="nan" ytl="2" xbr="3" ybr="4"/>': "has no number 'xtl'",
    '<polygon label="cat" points="1,1;2,2"/>': "a polygon needs three points or more, got 2",
    '<polygon label="cat" points="1,1;2"/>': "has 3 coordinates",
    '<polygon label="cat" points="1,1;2,2;1e300,4"/>': "not finite numbers",
    '<mask label="cat" rle="1, 3" left="0" top="0" width="3" height="2"/>': "runs are of 4 pixels, 3x2 are 6",
    '<mask label="cat" rle="6" left="0" top="0" width="3" height="2"/>': "without a pixel",
    '<mask label="cat" rle="9" left="0" top="0" width="99999999" height="99999999"/>': "its image has 60x40",
    '<mask label="cat" rle="-1, 7" left="0" top="0" width="3" height="2"/>': "runs are of 6 pixels",
}


@pytest.mark.parametrize("shape", WRONG)
def test_a_shape_that_is_none_is_an_error_or_a_finding(tmp_path: Path, shape: str) -> None:
    file = write(tmp_path, image(shape, BOX))
    with pytest.raises(DataError, match=WRONG[shape]):
        read_dataset(file)
    findings = Findings()
    assert len(read_dataset(file, findings=findings)[0].instances) == 1
    assert [one.kind for one in findings.found] == ["record_malformed"]


def test_images_are_those_that_were_annotated(tmp_path: Path) -> None:
    file = write(tmp_path, image(BOX) + image(BOX, name="b.png"))
    with pytest.raises(DataError, match=r"1 of 2 image files not found, the first is 'b\.png'"):
        read_dataset(file)
    findings = Findings()
    assert len(read_dataset(file, findings=findings)) == 1
    assert [one.kind for one in findings.found] == ["image_missing"]
    file.write_text(file.read_text().replace('width="60"', 'width="61"'))
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "b.png")
    with pytest.raises(DataError, match=r"a\.png: annotated as 61x40 pixels .* but has 60x40"):
        read_dataset(file)


# Videos


def tracked(frame: int, x: float, outside: int = 0, keyframe: int = 1, more: str = "") -> str:
    where = f'xtl="{x}" ytl="5" xbr="{x + 10}" ybr="15"'
    return f'<box frame="{frame}" keyframe="{keyframe}" outside="{outside}" occluded="0" {where} {more}/>'


TRACK = f'<track id="0" label="cat">{tracked(1, 10)}{tracked(3, 20)}{tracked(4, 22, 1)}{tracked(6, 30)}</track>'
TASK = "<start_frame>0</start_frame><stop_frame>7</stop_frame>"
EXPECTED = [[], [10], [15], [20], [], [], [30], [30]]


def lefts(dataset: Dataset) -> list[list[float]]:
    return [dataset[i].instances.boxes_xyxy_px[:, 0].tolist() for i in range(len(dataset))]


def test_tracks_run_from_key_frame_to_outside(tmp_path: Path) -> None:
    file = write(tmp_path, TRACK, TASK, tuple(f"images/frame_{n:06d}.PNG" for n in range(8)))
    assert lefts(quietly(file)) == EXPECTED
    file.write_text(file.read_text().replace(TASK, ""))
    assert lefts(quietly(file)) == EXPECTED, "to the last picture there is"
    assert quietly(tmp_path)[2].image == tmp_path / "images" / "frame_000002.PNG"


def test_every_second_frame_of_a_task(tmp_path: Path) -> None:
    task = "<start_frame>2</start_frame><stop_frame>6</stop_frame><frame_filter>step=2</frame_filter>"
    file = write(tmp_path, TRACK, task, tuple(f"frame_{n:06d}.png" for n in range(8)))
    with pytest.raises(DataError, match=r"frame_000001"):
        read_dataset(file)
    body = f'<track id="0" label="cat">{tracked(2, 10)}{tracked(4, 20)}{tracked(6, 22, 1)}</track>'
    assert lefts(quietly(write(tmp_path, body, task))) == [[10], [20], []]


def test_frames_of_other_names_are_taken_in_order(tmp_path: Path) -> None:
    file = write(tmp_path, TRACK, TASK, tuple(f"images/{n}.png" for n in (*range(2, 9), 10)))
    with pytest.warns(UserWarning, match=r"took the 8 of .*images in the order of their names"):
        dataset = read_dataset(file)
    assert lefts(dataset) == EXPECTED
    assert dataset[7].image.name == "10.png"  # type: ignore[union-attr]


def test_frames_of_a_video_beside_it(tmp_path: Path) -> None:
    with video_writer(tmp_path / "clip.mp4", 5) as append:
        for number in range(8):
            append(np.full((HEIGHT, WIDTH, 3), 30 * number, np.uint8))
    file = write(tmp_path, TRACK, f"{TASK}<source>clip.mp4</source>", ())
    dataset = quietly(file)
    assert lefts(dataset) == EXPECTED
    for index in (5, 0, 7):
        sample = load(pickle.loads(pickle.dumps(dataset))[index])  # noqa: S301
        assert np.abs(np.asarray(sample.image).astype(int) - 30 * index).max() < 8
    written = write_dataset(dataset, tmp_path / "out", "coco")
    assert lefts(quietly(written)) == EXPECTED
    (tmp_path / "clip.mp4").rename(tmp_path / "elsewhere.mp4")
    assert lefts(quietly(file, images=tmp_path / "elsewhere.mp4")) == EXPECTED


def test_a_videos_task_exported_for_images(tmp_path: Path) -> None:
    body = "".join(image(BOX if n == 3 else "", name=f"frame_{n:06d}") for n in (1, 3, 4))
    file = write(tmp_path / "files", body, "", tuple(f"images/frame_{n:06d}.PNG" for n in range(6)))
    assert [sample.image.stem[-1] for sample in quietly(file)] == ["1", "3", "4"]  # type: ignore[attr-defined,union-attr]
    with video_writer(tmp_path / "clip.mp4", 5) as append:
        for _ in range(8):
            append(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    for dataset in (quietly(file), quietly(write(tmp_path, body, "", ()))):
        assert lefts(dataset) == [[], [10], []]


def test_a_video_without_frames_says_what_is_missing(tmp_path: Path) -> None:
    file = write(tmp_path, TRACK, TASK, ())
    with pytest.raises(DataError, match=r"CVAT for video\): 3 of 3 image files not found, the first is 'frame_000001'"):
        read_dataset(file)
    file.write_text(file.read_text().replace("<stop_frame>7", f"<stop_frame>{10**15}"))
    with pytest.raises(DataError, match=r"frame_000001"):
        read_dataset(file)


def test_shapes_between_key_frames() -> None:
    half = between(Shape("box", "a", (0, 0, 10, 10), 350), Shape("box", "a", (10, 20, 20, 40), 10), 0.5)
    assert half == Shape("box", "a", (5, 10, 15, 25), 0)
    square = (0.0, 0.0, 8.0, 0.0, 8.0, 8.0, 0.0, 8.0)
    moved = between(Shape("polygon", "a", square), Shape("polygon", "a", tuple(n + 4 for n in square)), 0.25)
    assert moved.numbers == tuple(n + 1 for n in square)
    finer = (0.0, 0.0, 4.0, 0.0, 8.0, 0.0, 8.0, 8.0, 0.0, 8.0)
    grown = np.array(between(Shape("polygon", "a", square), Shape("polygon", "a", finer), 0.5).numbers).reshape(-1, 2)
    assert {(0, 0), (8, 0), (8, 8), (0, 8)} <= set(map(tuple, grown.tolist()))
    still = Shape("mask", "a", (0, 0, 1, 1, 0, 1))
    assert between(still, Shape("mask", "a", (5, 5, 1, 1, 0, 1)), 0.5) == still


# Writing


def test_masks_are_written_as_masks_and_come_back_bit_for_bit(tmp_path: Path) -> None:
    bitmap = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3
    rle = coco_mask.encode(np.asfortranarray(bitmap, np.uint8))
    objects = Instances.build([[0, 0, WIDTH, HEIGHT]], [0], None, masks_rle=[rle])
    vocabulary = Vocabulary(("cat",))
    sample = Sample(np.zeros((HEIGHT, WIDTH, 3), np.uint8), (HEIGHT, WIDTH), objects, vocabulary, 1)
    written = write_dataset(SampleList((sample,), vocabulary), tmp_path / "out", "cvat")
    assert "<mask " in written.read_text()
    assert "<box " not in written.read_text()
    (mask,) = quietly(written)[0].instances.masks_rle or ()
    np.testing.assert_array_equal(coco_mask.decode(mask), bitmap)
    boxes = write_dataset(SampleList((sample,), vocabulary), tmp_path / "boxes", "cvat", masks=False)
    assert 'xtl="0" ytl="0" xbr="60" ybr="40"' in boxes.read_text()
