"""Readers of phrases and masks: a faithful miniature of every format, its faults, and the real sets."""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import refer_miniatures as mini
from PIL import Image
from pycocotools import mask as coco_mask
from refer_miniatures import everything, pixels

from deixis.data.formats import read_dataset
from deixis.data.formats.shards.write import write_shards
from deixis.data.formats.writing import write_dataset
from deixis.data.refer.loading import decoded
from deixis.data.refer_formats import read_refer
from deixis.data.refer_formats.sa1b import Sa1b
from deixis.data.refer_formats.table import REFER_FORMATS
from deixis.data.refer_formats.templates import templated
from deixis.errors import DataError, OptionError
from deixis.records import Instances, SampleList


class TestSa1b:
    def test_masks_await_captions(self, tmp_path: Path) -> None:
        samples = everything(read_refer(mini.sa1b(tmp_path)))
        assert [sample.image_id for sample in samples] == [1, 2, 10], "by number, not by text"
        assert all(e.texts == () for sample in samples for e in sample.expressions)
        assert [pixels(e.masks_rle[0]) for e in samples[0].expressions] == [200, 280]
        assert samples[0].expressions[1].expression_id == 500_000_011

    def test_at_most_so_many_files_are_listed_and_none_is_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mini.sa1b(tmp_path, tuple(range(1, 31)))
        listed = []
        real = os.scandir

        class Counting:
            def __init__(self, folder: Any) -> None:
                self.inner = real(folder)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                self.inner.close()

            def __iter__(self) -> Any:
                for entry in self.inner:
                    listed.append(entry.name)
                    yield entry

        monkeypatch.setattr(os, "scandir", Counting)
        opened: list[Path] = []
        monkeypatch.setattr(Path, "read_text", lambda self, **_: opened.append(self))
        dataset = read_refer(tmp_path, format="sa1b", max_samples=3)
        assert len(dataset) == 3
        assert sum(name.endswith(".json") for name in listed) == 3
        assert not opened

    def test_folders_of_folders(self, tmp_path: Path) -> None:
        mini.sa1b(tmp_path / "sa_000001", (7,))
        mini.sa1b(tmp_path / "sa_000000", (3,))
        assert [s.image_id for s in everything(read_refer(tmp_path))] == [3, 7]
        assert len(read_refer(tmp_path, max_samples=1)) == 1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"annotations": None}, "has no 'image' and 'annotations'"),
            ({"image": {"width": 40}}, "no height and width"),
            (
                {"annotations": [{"segmentation": {"size": [9, 9], "counts": "a"}}]},
                "annotation 1: segmentation has size",
            ),
            ({"annotations": [{}]}, "annotation 1: has no segmentation"),
            ({"annotations": [{"segmentation": {"size": [30, 40], "counts": "~~"}}]}, "which RLE text does not use"),
        ],
    )
    def test_a_damaged_file_is_named_when_it_is_read(self, tmp_path: Path, change: Any, message: str) -> None:
        mini.sa1b(tmp_path, (1, 2))
        file = tmp_path / "sa_2.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        dataset = read_refer(tmp_path)
        assert len(dataset) == 2
        decoded(dataset[0])
        with pytest.raises(DataError, match=f"sa_2.json: .*{message}"):
            dataset[1]

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no sa_1\.json"):
            read_refer(tmp_path, format="sa1b")

    def test_pickles_for_workers(self, tmp_path: Path) -> None:
        dataset = read_refer(mini.sa1b(tmp_path))
        again = pickle.loads(pickle.dumps(dataset))  # noqa: S301
        assert isinstance(again, Sa1b)
        assert again[0] == dataset[0]


class TestOpenImages:
    def test_masks_of_another_size_and_names(self, tmp_path: Path) -> None:
        first, second = everything(read_refer(mini.open_images(tmp_path)))
        assert [e.texts for e in first.expressions] == [("the Man",), ("the Person",)]
        assert [len(e.masks_rle) for e in first.expressions] == [2, 1]
        # twice as high and wide as the PNG: rows 4 to 15, columns 6 to 9
        whole = coco_mask.decode(first.expressions[0].masks_rle[0])
        wanted = np.zeros(mini.SIZE_HW, np.uint8)
        wanted[4:16, 6:10] = 1
        np.testing.assert_array_equal(whole, wanted)
        assert [e.texts for e in second.expressions] == [("the Person",)]

    def test_single_objects_only(self, tmp_path: Path) -> None:
        first, _ = everything(
            read_refer(mini.open_images(tmp_path), objects="single", templates=["a {name}", "{name}"])
        )
        assert [e.texts for e in first.expressions] == [("a Person", "Person")]

    def test_what_is_not_there_is_left_out_and_counted(self, tmp_path: Path) -> None:
        folder = mini.open_images(tmp_path)
        (folder / "train" / "0c2d.jpg").unlink()
        with pytest.warns(UserWarning, match="left out 1 images, which are not there, the first is 0c2d"):
            assert len(read_refer(folder)) == 1
        mini.open_images(tmp_path)
        next((folder / "masks").glob("0a1b*_bb.png")).unlink()
        with pytest.warns(UserWarning, match="left out 1 images whose mask files are not all there, the first is 0a1b"):
            (sample,) = everything(read_refer(folder))
        assert sample.source.endswith("image 0c2d")

    def test_faults(self, tmp_path: Path) -> None:
        folder = mini.open_images(tmp_path)
        (folder / "class-descriptions.csv").write_text("/m/04yx4,Man\n")
        with pytest.raises(DataError, match="line 4: label '/m/01g317' is not among the class descriptions"):
            read_refer(folder)
        faults: list[str] = []
        assert len(read_refer(folder, faults=faults)) == 1
        assert len(faults) == 2
        (folder / "class-descriptions.csv").unlink()
        with pytest.raises(DataError, match=r"needs class-descriptions.csv beside it"):
            read_refer(folder)

    def test_nothing_there(self, tmp_path: Path) -> None:
        folder = mini.open_images(tmp_path)
        for file in (folder / "masks").iterdir():
            file.unlink()
        with pytest.raises(DataError, match=r"the masks of 2 images are missing"):
            read_refer(folder)

    def test_a_damaged_mask(self, tmp_path: Path) -> None:
        folder = mini.open_images(tmp_path)
        next((folder / "masks").glob("0c2d*")).write_bytes(b"no png")
        with pytest.raises(DataError, match=r"0c2d.*png: cannot read the mask"):
            everything(read_refer(folder))


SA2VA = {"image": "a.jpg", "mask": [[mini.LEFT], mini.OVERLAPPING], "text": ["the left one", "both"]}


class TestJson:
    def test_sa2vas_layout(self, tmp_path: Path) -> None:
        (sample,) = everything(read_refer(mini.plain(tmp_path, [SA2VA])))
        assert [e.texts for e in sample.expressions] == [("the left one",), ("both",)]
        assert [pixels(e.masks_rle[0]) for e in sample.expressions] == [200, 320], "union, not sum"

    def test_our_layout(self, tmp_path: Path) -> None:
        entry = {
            "image": "b.jpg",
            "id": 31,
            "expressions": [
                {"text": ["a cup", "it"], "masks": [[mini.LEFT], mini.rle([mini.RIGHT])], "tags": ["hard"], "id": 5},
                {"text": "a dog", "masks": []},
                {"masks": [mini.LEFT]},
            ],
        }
        _, sample = everything(read_refer(mini.plain(tmp_path, [SA2VA, entry])))
        several, absent, wordless = sample.expressions
        assert (several.texts, several.tags, several.expression_id) == (("a cup", "it"), ("hard",), 5)
        assert [pixels(mask) for mask in several.masks_rle] == [200, 280]
        assert (absent.texts, absent.masks_rle) == (("a dog",), ())
        assert (wordless.texts, len(wordless.masks_rle)) == ((), 1)
        assert sample.image_id == 31

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({**SA2VA, "text": ["one"]}, "2 masks for 1 texts; each text needs a mask"),
            ({**SA2VA, "mask": None}, "no masks for 2 texts"),
            ({**SA2VA, "mask": [[mini.LEFT], []]}, "text 2: mask 1 has no polygon"),
            ({**SA2VA, "mask": [[mini.LEFT], [[1, 1, 1, 1, 1, 1]]]}, "text 2: mask 1 covers no pixel"),
            ({**SA2VA, "mask": [[mini.LEFT], {"size": [3, 3], "counts": [9]}]}, r"mask 1 has size \[3, 3\]"),
            ({**SA2VA, "text": ["one", " "]}, "text 2: a sentence is blank"),
            ({"image": "a.jpg"}, "has neither 'expressions' nor 'mask' and 'text'"),
            ({"mask": []}, "has no 'image'"),
            ({"image": "a.jpg", "expressions": [{"text": "x"}]}, "expected an object with 'text' and 'masks'"),
            ({"image": "a.jpg", "expressions": [{"masks": []}]}, "text must be a sentence"),
            ({**SA2VA, "height": -3, "width": 4}, r"image size \(height, width\) must be positive"),
        ],
    )
    def test_what_cannot_be_used_is_an_error_and_never_cut_to_fit(
        self, tmp_path: Path, entry: dict[str, Any], message: str
    ) -> None:
        path = mini.plain(tmp_path, [SA2VA, entry])
        with pytest.raises(DataError, match=f"data.json: entry 2.*{message}"):
            read_refer(path)
        faults: list[str] = []
        assert (
            read_refer(path, faults=faults)[0].expressions == read_refer(mini.plain(tmp_path, [SA2VA]))[0].expressions
        )
        assert len(faults) == 1

    def test_the_size_is_the_upright_pictures(self, tmp_path: Path) -> None:
        path = mini.plain(tmp_path, [SA2VA])
        turned = Image.new("RGB", (30, 40))
        turned.save(tmp_path / "a.jpg", exif=_orientation(turned, 6))
        assert everything(read_refer(path))[0].size_hw == (30, 40)

    def test_missing_pictures_and_no_list(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"1 of 1 image files not found, the first is 'c.jpg'"):
            read_refer(mini.plain(tmp_path, [{**SA2VA, "image": "c.jpg"}]))
        with pytest.raises(DataError, match="has no entry"):
            read_refer(mini.plain(tmp_path, []))
        (tmp_path / "data.json").write_text("[{")
        with pytest.raises(DataError, match="malformed JSON"):
            read_refer(tmp_path / "data.json")


def _orientation(image: Image.Image, value: int) -> Any:
    exif = image.getexif()
    exif[0x0112] = value
    return exif


class TestTemplates:
    def test_a_class_means_all_its_objects(self, tmp_path: Path) -> None:
        samples = everything(read_refer(mini.coco(tmp_path)))
        assert [s.image_id for s in samples] == [1, 2], "the image without objects has no phrase"
        assert [e.texts for e in samples[0].expressions] == [("the cup",), ("the dog",)]
        assert [len(e.masks_rle) for e in samples[0].expressions] == [2, 1]
        assert [len(e.masks_rle) for e in samples[1].expressions] == [2], "a crowd of dogs is dogs"

    def test_single_leaves_out_what_is_not_alone(self, tmp_path: Path) -> None:
        (sample,) = everything(read_refer(mini.coco(tmp_path), objects="single", templates=("{name}",)))
        assert [(e.texts, len(e.masks_rle)) for e in sample.expressions] == [(("dog",), 1)]

    def test_absent_classes_are_asked_for_too(self, tmp_path: Path) -> None:
        dataset = read_refer(mini.coco(tmp_path), absent_per_image=2)
        samples = everything(dataset)
        absent = [[e.texts[0] for e in s.expressions if not e.masks_rle] for s in samples]
        assert absent[0] == ["the train"]
        assert set(absent[1]) == {"the cup", "the train"}
        assert len(absent[2]) == 2
        assert all(e.tags == ("absent",) for s in samples for e in s.expressions if not e.masks_rle)
        assert dataset[2] == dataset[2]

    def test_objects_without_masks(self, tmp_path: Path) -> None:
        labels = read_refer(mini.coco(tmp_path)).dataset  # type: ignore[attr-defined]
        boxes = labels[1].evolve(instances=Instances.build([[1, 1, 5, 5]], [0]))
        with pytest.warns(UserWarning, match="left out 1 images whose objects have no masks, the first is labels.json"):
            assert len(templated(SampleList((labels[0], boxes), labels.vocabulary))) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(DataError, match="none of its 1 images gives a phrase"):
                templated(SampleList((boxes,), labels.vocabulary))

    @pytest.mark.parametrize(("format", "masks"), [("coco", False), ("yolo", False), ("lvis", True)])
    def test_the_error_names_the_file_that_was_given(self, tmp_path: Path, format: str, masks: bool) -> None:
        """Boxes alone, and an image that shows nothing."""
        labels = read_refer(mini.coco(tmp_path / "in")).dataset  # type: ignore[attr-defined]
        kept = labels[2] if masks else labels[0]
        written = write_dataset(SampleList((kept,), labels.vocabulary), tmp_path / "out", format, masks=masks)
        for place in (written, tmp_path / "out"):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with pytest.raises(DataError, match=rf"^{re.escape(str(place))}: none of its 1 images gives a phrase"):
                    read_refer(place)
            found = [str(one.message) for one in caught if "have no masks" in str(one.message)]
            assert [text.startswith(f"{place}: left out 1 images") for text in found] == ([] if masks else [True])

    def test_classes_not_shown_exhaustively_are_left_out(self, tmp_path: Path) -> None:
        labels = read_refer(mini.coco(tmp_path)).dataset  # type: ignore[attr-defined]
        partly = labels[0].evolve(not_exhaustive_class_ids=frozenset({0}))
        (sample,) = everything(templated(SampleList((partly,), labels.vocabulary)))
        assert [e.texts for e in sample.expressions] == [("the dog",)]

    def test_a_template_needs_its_name(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"has no \{name\}"):
            read_refer(mini.coco(tmp_path), templates=("the thing",))


class TestOneFunction:
    @pytest.mark.parametrize("name", ["refcoco", "sa1b", "openimages_masks", "refer_json", "coco", "scenes"])
    def test_formats_are_recognised_and_can_be_named(self, tmp_path: Path, name: str) -> None:
        path: Any = {
            "refcoco": lambda: f"{mini.refcoco(tmp_path)}#train",
            "sa1b": lambda: mini.sa1b(tmp_path),
            "openimages_masks": lambda: mini.open_images(tmp_path),
            "refer_json": lambda: mini.plain(tmp_path, [SA2VA]).parent,
            "coco": lambda: mini.coco(tmp_path),
            "scenes": lambda: "scenes:split=refer_train,count=3,seed=1",
        }[name]()
        assert name in (*REFER_FORMATS, "scenes")
        assert everything(read_refer(path)) is not None
        assert len(read_refer(path, format=name)) == len(read_refer(path))
        assert len(read_refer(path, max_samples=1)) == 1

    def test_what_cannot_be_meant(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such file or folder"):
            read_refer(tmp_path / "nothing")
        with pytest.raises(DataError, match="unknown format 'x'; choose one of sa1b, refcoco"):
            read_refer(tmp_path, format="x")
        with pytest.raises(DataError, match="sa1b annotations have no splits"):
            read_refer(mini.sa1b(tmp_path / "s"), split="val")
        with pytest.raises(DataError, match="must be 1 or more, got 0"):
            read_refer(tmp_path / "s", max_samples=0)

    def test_a_folder_of_several_sets(self, tmp_path: Path) -> None:
        mini.refcoco(tmp_path)
        with pytest.raises(
            DataError, match=r"no phrases and masks of a known format .*; give one of its folders: refcoco"
        ):
            read_refer(tmp_path)

    def test_boxes_alone_are_no_phrases(self, tmp_path: Path) -> None:
        (tmp_path / "a.xml").write_text("<annotation><object/></annotation>")
        mini.picture(tmp_path / "a.jpg")
        with pytest.raises(DataError, match="voc annotations have no masks"):
            read_refer(tmp_path)
        write_shards(read_dataset("scenes:split=demo_train,count=1,seed=1"), tmp_path / "shards")
        with pytest.raises(DataError, match="shards annotations have no masks; give data with masks"):
            read_refer(tmp_path / "shards")


class TestRealSets:
    @pytest.mark.parametrize(
        ("name", "single"), [("coco_tiny_train2017", 46), ("tiny_coco_train", 19), ("tiny_coco_val", 4)]
    )
    def test_coco(self, shared_data: Path, name: str, single: int) -> None:
        path = shared_data / "coco_cc_instances" / f"instances_{name}.json"
        # SOURCE.md counts the (image, category) pairs with exactly one instance
        alone = read_refer(path, objects="single")
        assert sum(len(alone[i].expressions) for i in range(len(alone))) == single
        for sample in everything(read_refer(path)):
            assert all(pixels(mask) > 0 for e in sample.expressions for mask in e.masks_rle)

    def test_labelme(self, shared_data: Path) -> None:
        samples = everything(read_refer(shared_data / "fruits_nuts_labelme"))
        assert len(samples) == 18
        assert sum(len(e.masks_rle) for sample in samples for e in sample.expressions) == 165
        assert {e.texts[0] for s in samples for e in s.expressions} == {"the date", "the fig", "the hazelnut"}
