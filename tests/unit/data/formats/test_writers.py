"""Writers: what is read back is what was written, and what is not is said before."""

from __future__ import annotations

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from random_datasets import FORMATS, ONLY_USED_NAMES, assert_same, assert_same_instances, datasets

from deixis.data.formats import read_dataset
from deixis.data.formats.table import FORMATS as TABLE
from deixis.data.formats.table import WRITTEN
from deixis.data.formats.writing import not_kept, write_dataset
from deixis.data.pixels.images import load
from deixis.errors import DataError
from deixis.records import Instances, Sample, SampleList, Vocabulary

# beartype checks an element of a list that it picks by `random`, inside strategies too
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
pytest.importorskip("pyarrow", reason="parquet is an extra; pip install 'deixis[parquet]'")

SIZE_HW = (10, 40)
CAT_DOG = Vocabulary(("cat", "dog"))


def there_and_back(dataset: Any, format: str, **options: Any) -> Any:
    """The data set after writing and reading; a list, since its folder is gone by then."""
    with TemporaryDirectory() as home:
        folder = Path(home) / "written"
        read = read_dataset(write_dataset(dataset, folder, format, **options))
        assert type(read_dataset(folder)) is type(read), "the folder is recognised too"
        samples = tuple(load(read[index]) for index in range(len(read)))
        return SampleList(samples, read.vocabulary)


@pytest.mark.parametrize("format", FORMATS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_what_a_format_holds_comes_back_the_same_and_nothing_is_said_lost(format: str, data: st.DataObject) -> None:
    dataset = data.draw(datasets(format))
    assert not_kept(dataset, format) == []
    assert_same(dataset, there_and_back(dataset, format))


@pytest.mark.parametrize("format", FORMATS)
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_either_something_is_said_lost_or_all_comes_back(format: str, data: st.DataObject) -> None:
    dataset = data.draw(datasets())
    if format in ONLY_USED_NAMES:  # which has no class names, and so cannot be read, where there is no object
        assume(any((~sample.instances.is_crowd).any() for sample in dataset.samples))
    once = there_and_back(dataset, format)
    if not not_kept(dataset, format):
        assert_same(dataset, once)
    assert not_kept(once, format) == [], "what is left is what the format holds"
    assert_same(once, there_and_back(once, format))


def sample(instances: Instances, image_id: int = 1, vocabulary: Vocabulary = CAT_DOG, **more: Any) -> Sample:
    pixels = np.zeros((*SIZE_HW, 3), np.uint8)
    return Sample(pixels, SIZE_HW, instances, vocabulary, image_id, f"image {image_id}", **more)


def one(instances: Instances, **more: Any) -> SampleList:
    return SampleList((sample(instances, **more),), CAT_DOG)


CROWD = Instances.build([[1, 1, 5, 5], [0, 0, 40, 10]], [0, 1], [False, True])


@pytest.mark.parametrize("format", ["voc", "yolo", "odvg", "lvis"])
def test_crowds_are_left_out_where_they_would_become_objects(format: str) -> None:
    dataset = one(CROWD)
    assert any("1 crowd regions: left out" in line for line in not_kept(dataset, format))
    read = there_and_back(dataset, format)
    assert len(read[0].instances) == 1
    if format == "lvis":
        assert read[0].not_exhaustive_class_ids == {1}
        assert 1 not in read[0].known_absent_class_ids


@pytest.mark.parametrize("format", FORMATS)
def test_names_of_single_images_become_one_vocabulary(format: str) -> None:
    own = Vocabulary(("dog", "a red car"))
    whole = Vocabulary(("cat", "dog", "a red car"))
    first = sample(Instances.build([[1, 1, 5, 5]], [1], None), 1, own)
    dataset = SampleList((first, sample(Instances.build([[1, 1, 5, 5]], [0]), 2, whole)), whole)
    said = not_kept(dataset, format)
    read = there_and_back(dataset, format)
    assert read[0].vocabulary.names[read[0].instances.class_ids[0]] == "a red car"
    if format == "odvg":
        assert read[0].vocabulary.names == ("a red car",)
        assert any("1 names of grounding images without a box" in line for line in said)
    else:
        assert any("names of 1 images of their own" in line for line in said)
    if format in ("lvis", "openimages"):
        assert read[0].absent_class_ids == {1}, "the dog was asked for, the cat was not"


def test_grounding_comes_back_with_caption_phrases_and_their_places(tmp_path: Path) -> None:
    names = Vocabulary(("two dogs", "a red car", "dog"))
    objects = Instances.build([[1, 1, 5, 5], [6, 1, 9, 5], [20, 0, 40, 10], [1, 1, 5, 5]], [0, 0, 1, 2])
    dataset = SampleList((sample(objects, 1, names, caption="two dogs by a red car, one dog runs"),), names)
    assert not_kept(dataset, "odvg") == []
    assert_same(dataset, there_and_back(dataset, "odvg"))
    line = json.loads(write_dataset(dataset, tmp_path / "out", "odvg").read_text())
    caption, regions = line["grounding"]["caption"], line["grounding"]["regions"]
    assert [caption[slice(*region["tokens_positive"][0])] for region in regions] == list(names.names)
    assert regions[2]["tokens_positive"][0][0] == caption.rindex("dog"), "phrases stand in order"
    assert any("captions of 1 images" in text for text in not_kept(dataset, "coco"))


def test_an_image_of_which_nothing_is_known_stays_so_in_odvg() -> None:
    dataset = one(Instances.none(), absent_class_ids=frozenset())
    shown = SampleList((*dataset.samples, sample(Instances.build([[1, 1, 5, 5]], [0]), 2)), CAT_DOG)
    assert not_kept(shown, "odvg") == []
    assert_same(shown, there_and_back(shown, "odvg"))


def files(folder: Path, names: list[str]) -> SampleList:
    """Images on disk, each with a box."""
    samples = []
    for number, name in enumerate(names, start=1):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE_HW[::-1], (50 * number, 0, 0)).save(folder / name)
        box = Instances.build([[number, 1, 30, 9]], [0])
        samples.append(Sample(folder / name, SIZE_HW, box, CAT_DOG, number, name))
    return SampleList(tuple(samples), CAT_DOG)


@pytest.mark.parametrize("format", FORMATS)
def test_images_of_one_name_are_told_apart(tmp_path: Path, format: str) -> None:
    dataset = files(tmp_path / "in", ["x/a.jpg", "y/a.jpg", "y/A.png", "y/b.c.jpg"])
    read = read_dataset(write_dataset(dataset, tmp_path / "out", format))
    assert len(read) == 4
    for index in range(4):
        sample = load(read[index])
        red = float(np.asarray(sample.image)[0, 0, 0])
        assert sample.instances.boxes_xyxy_px[0, 0] == pytest.approx(red / 50, abs=0.1)


def test_images_are_copied_byte_for_byte_or_linked(tmp_path: Path) -> None:
    dataset = files(tmp_path / "in", ["a.jpg"])
    source = tmp_path / "in" / "a.jpg"
    write_dataset(dataset, tmp_path / "copied", "coco")
    write_dataset(dataset, tmp_path / "linked", "coco", images="link")
    copied, linked = tmp_path / "copied/images/a.jpg", tmp_path / "linked/images/a.jpg"
    assert copied.read_bytes() == source.read_bytes()
    assert not copied.is_symlink()
    assert linked.resolve() == source.resolve()
    read = read_dataset(write_dataset(dataset, tmp_path / "inside", "parquet"))
    assert write_dataset(read, tmp_path / "outside", "coco").exists()
    assert (tmp_path / "outside/images/a.jpg").read_bytes() == source.read_bytes(), "embedded files stay as they are"


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_annotated_lying_is_written_lying(tmp_path: Path, format: str) -> None:
    """The file is 40 wide and 10 high and says "turn me"; the annotation was made on it unturned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", SIZE_HW[::-1])
    picture.putpixel((39, 0), (255, 255, 255))
    picture.save(tmp_path / "a.png", exif=exif)
    objects = Instances.build([[30, 0, 40, 5]], [0])
    dataset = SampleList((Sample(tmp_path / "a.png", SIZE_HW, objects, CAT_DOG, 1),), CAT_DOG)
    read = load(read_dataset(write_dataset(dataset, tmp_path / "out", format))[0])
    assert read.size_hw == SIZE_HW
    assert np.asarray(read.image)[0, 39].tolist() == [255, 255, 255]
    assert_same_instances(read.instances, objects)


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_is_whole_or_not_there(tmp_path: Path, format: str) -> None:
    dataset = files(tmp_path / "in", ["a.jpg", "b.jpg"])
    (tmp_path / "in" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b.jpg: cannot decode image"):
        write_dataset(dataset, tmp_path / "out", format)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    with pytest.raises(DataError, match=r"in: exists and is not empty; choose another output folder"):
        write_dataset(dataset, tmp_path / "in", format)
    (tmp_path / "empty").mkdir()
    (tmp_path / "in" / "b.jpg").write_bytes((tmp_path / "in" / "a.jpg").read_bytes())
    write_dataset(dataset, tmp_path / "empty", format)
    assert len(read_dataset(tmp_path / "empty")) == 2


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    objects = Instances.build([[1, 1, 5, 5]], [0])
    with pytest.raises(DataError, match=r"unknown format 'bdd'; choose one of voc, yolo"):
        write_dataset(one(objects), tmp_path / "out", "bdd")
    for name in (" cat", "c\nat", "c\x00at"):
        vocabulary = Vocabulary((name,))
        odd = SampleList((sample(objects, 1, vocabulary),), vocabulary)
        with pytest.raises(DataError, match=r"rename it"):
            write_dataset(odd, tmp_path / "out", "voc")
    twice = SampleList((sample(objects), sample(objects)), CAT_DOG)
    with pytest.raises(DataError, match=r"image id 1 occurs more than once"):
        write_dataset(twice, tmp_path / "out", "coco")
    alike = Vocabulary(("hot dog", "hot_dog"))
    with pytest.raises(DataError, match=r"differ only in blanks and '_'"):
        write_dataset(SampleList((sample(objects, 1, alike),), alike), tmp_path / "out", "lvis")
    assert list(tmp_path.iterdir()) == []


def test_masks_can_be_left_out(shared_data: Path, tmp_path: Path) -> None:
    dataset = read_dataset(shared_data / "coco_cc_instances" / "instances_tiny_coco_val.json")
    assert any("masks of 26 objects: left out as asked" in line for line in not_kept(dataset, "yolo", masks=False))
    read = read_dataset(write_dataset(dataset, tmp_path / "out", "yolo", masks=False))
    boxes = [{Path(str(d[i].image)).name: d[i].instances for i in range(2)} for d in (dataset, read)]
    for name, before in boxes[0].items():
        assert boxes[1][name].masks_rle is None
        np.testing.assert_allclose(boxes[1][name].boxes_xyxy_px, before.boxes_xyxy_px)


@pytest.mark.parametrize(
    ("source", "format"),
    [
        *(("coco_cc_instances/instances_tiny_coco_train.json", format) for format in FORMATS),
        *(("tree_crowns_aerial_voc", format) for format in FORMATS),
        ("fruits_nuts_labelme", "coco"),
        ("fruits_nuts_labelme", "yolo"),
    ],
)
def test_real_sets_keep_images_names_and_boxes(shared_data: Path, tmp_path: Path, source: str, format: str) -> None:
    dataset = read_dataset(shared_data / source)
    moved = [line for line in not_kept(dataset, format) if line.startswith("boxes of")]
    upright = format == "yolo_obb"  # whose turned rectangles have other bounds than their masks
    read = read_dataset(write_dataset(dataset, tmp_path / "out", format, images="link", masks=not upright))
    assert len(read) == len(dataset)
    assert sum(len(read[i].instances) for i in range(len(read))) == sum(
        len(dataset[i].instances) for i in range(len(dataset))
    )
    found = {Path(str(getattr(read, "records", read)[i].image)).stem: i for i in range(len(read))}
    for index in range(len(dataset)):
        before = dataset[index]
        after = getattr(read, "records", read)[found[Path(str(before.image)).stem]]
        assert after.size_hw == before.size_hw
        names = [sample.vocabulary.names[i] for sample in (before, after) for i in sample.instances.class_ids]
        assert names[: len(names) // 2] == names[len(names) // 2 :]
        far = np.abs(after.instances.boxes_xyxy_px - before.instances.boxes_xyxy_px).max(initial=0)
        assert far < (2 if moved else 1e-6)


def test_every_format_that_is_written_has_one_writer() -> None:
    assert set(WRITTEN) == set(FORMATS)
    assert all((format.write is None) != (format.write_parts is None) for format in WRITTEN.values())
    assert all(format.writes == (name in WRITTEN) for name, format in TABLE.items())


@pytest.mark.parametrize("format", WRITTEN)
def test_text_is_written_in_utf_8_whatever_the_systems_own(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io, "text_encoding", _named)
    Image.new("RGB", SIZE_HW[::-1]).save(tmp_path / "größe.png")
    vocabulary = Vocabulary(("größe",))
    one = Sample(tmp_path / "größe.png", SIZE_HW, Instances.build([[1, 1, 5, 5]], [0]), vocabulary, 1)
    write_dataset(SampleList((one,), vocabulary), tmp_path / "out", format)


def _named(encoding: str | None, stacklevel: int = 2) -> str:
    """In place of `io.text_encoding`, which is called where a file of text is opened."""
    assert encoding is not None, "without an encoding, the text is written in the system's own"
    return encoding
