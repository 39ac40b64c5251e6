"""RefCOCO: every sentence of every reference, and pickles that are plain or refused."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import refer_miniatures as mini
from pycocotools import mask as coco_mask
from refer_miniatures import everything, pixels

from deixis.data.refer_formats import read_refer
from deixis.data.refer_formats.plain_pickle import load_plain_pickle
from deixis.data.refer_formats.refcoco import read_refcoco
from deixis.errors import DataError


class TestRefcoco:
    def test_every_sentence_of_every_reference_is_kept(self, tmp_path: Path) -> None:
        (sample,) = everything(read_refer(mini.refcoco(tmp_path), split="train"))
        assert [e.texts for e in sample.expressions] == [
            ("left man", "man in red", "the man on the left side"),
            ("right man",),
            ("him again",),
        ]
        assert [e.expression_id for e in sample.expressions] == [0, 1, 2]
        assert (sample.image_id, sample.size_hw) == (9, mini.SIZE_HW)

    def test_references_to_one_object_stay_apart(self, tmp_path: Path) -> None:
        (sample,) = everything(read_refer(mini.refcoco(tmp_path), split="train"))
        assert sample.expressions[0].masks_rle == sample.expressions[2].masks_rle
        assert [pixels(e.masks_rle[0]) for e in sample.expressions] == [200, 280, 200]

    def test_overlapping_polygons_are_one_area(self, tmp_path: Path) -> None:
        (sample,) = everything(read_refer(f"{mini.refcoco(tmp_path)}#val"))
        assert sample.expressions[0].texts == ("the whole thing",)
        (mask,) = sample.expressions[0].masks_rle
        assert pixels(mask) == 16 * 20
        summed = sum(coco_mask.decode(coco_mask.frPyObjects([p], *mini.SIZE_HW)) for p in mini.OVERLAPPING)
        assert summed.max() == 2, "the faulty form gives 2 where they overlap"
        assert coco_mask.decode(mask).max() == 1

    def test_uncompressed_rle(self, tmp_path: Path) -> None:
        (sample,) = everything(read_refer(mini.refcoco(tmp_path), split="testA"))
        assert pixels(sample.expressions[0].masks_rle[0]) == 300

    def test_splits(self, tmp_path: Path) -> None:
        folder = mini.refcoco(tmp_path)
        assert len(read_refer(folder, split="all")) == 3
        with pytest.raises(DataError, match=r"name the split to read, one of train \(3\), val \(1\), testA \(1\)"):
            read_refer(folder)
        with pytest.raises(DataError, match="there is no split 'testB'"):
            read_refer(f"{folder}#testB")

    def test_umd_partition_and_the_file_itself(self, tmp_path: Path) -> None:
        refs = [mini.refcoco_reference(7, 1, 9, "val", "a man")]
        folder = mini.refcoco(tmp_path, refs, partition="umd", protocol=2)
        assert len(read_refer(folder)) == 1, "a single split need not be named"
        mini.refcoco(tmp_path, partition="google")
        assert len(read_refer(folder)) == 1, "UMD's partition goes before Google's"
        assert len(read_refer(folder / "refs(google).p", split="all")) == 3

    def test_pictures_elsewhere_and_missing(self, tmp_path: Path) -> None:
        folder = mini.refcoco(tmp_path)
        (tmp_path / "train2014").rename(tmp_path / "photos")
        with pytest.raises(DataError, match=r"1 of 1 image files not found, .*COCO_train2014_000000000009.jpg"):
            read_refer(folder, split="train")
        assert len(read_refer(folder, tmp_path / "photos", split="train")) == 1
        (tmp_path / "photos" / "COCO_train2014_000000000025.jpg").unlink()
        faults: list[str] = []
        assert len(read_refer(folder, tmp_path / "photos", split="all", faults=faults)) == 2
        assert len(faults) == 1
        assert "image 25: file COCO_train2014_000000000025.jpg not found" in faults[0]

    def test_what_cannot_be_used_is_counted_and_named(self, tmp_path: Path) -> None:
        refs = [
            mini.refcoco_reference(0, 1, 9, "train", "good"),
            mini.refcoco_reference(1, 77, 9, "train", "no such annotation"),
            mini.refcoco_reference(2, 4, 9, "train", "annotation of another image"),
            mini.refcoco_reference(3, 1, 88, "train", "no such image"),
            mini.refcoco_reference(4, 1, 9, "train", "fine", " "),
        ]
        folder = mini.refcoco(tmp_path, refs)
        with pytest.raises(DataError, match=r"reference 3: image 88 is not .*; and 1 more faults"):
            read_refer(folder)
        faults: list[str] = []
        (sample,) = everything(read_refer(folder, faults=faults))
        assert [e.texts for e in sample.expressions] == [("good",)]
        assert len(faults) == 4

    def test_a_reference_without_its_keys(self, tmp_path: Path) -> None:
        folder = mini.refcoco(tmp_path, [{"ref_id": 1}])
        with pytest.raises(DataError, match="reference number 1 has no ann_id, image_id, split, sentences"):
            read_refcoco(folder)


class Attack:
    """What `pickle.load` would run at once."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


class TestPickle:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_malicious_pickle_is_refused_and_not_run(self, tmp_path: Path, protocol: int) -> None:
        folder = mini.refcoco(tmp_path)
        marker = tmp_path / "run"
        refs = [mini.refcoco_reference(0, 1, 9, "train", "fine"), Attack(marker)]
        content = pickle.dumps(refs, protocol=protocol)
        (folder / "refs(unc).p").write_bytes(content)
        with pytest.raises(DataError, match=r"asks to import (posix|os)\.mkdir; .* nothing of it was run") as caught:
            read_refer(folder, split="train")
        assert "\n" not in str(caught.value)
        assert not marker.exists()
        pickle.loads(content)  # noqa: S301  # the same bytes do harm when read carelessly
        assert marker.exists()

    def test_harmless_looking_classes_are_refused_too(self, tmp_path: Path) -> None:
        (tmp_path / "a.p").write_bytes(pickle.dumps([OrderedDict(a=1)]))
        with pytest.raises(DataError, match=r"collections\.OrderedDict"):
            load_plain_pickle(tmp_path / "a.p")

    def test_python_2s_texts(self, tmp_path: Path) -> None:
        # protocol 0 as Python 2 wrote it: str (S'…'), unicode (V…) and long (…L)
        (tmp_path / "a.p").write_bytes(
            b"(lp0\n(dp1\nS'sent'\np2\nS'left man'\np3\nsS'id'\nL12L\nsVraw\nVcaf\\u00e9\nsa."
        )
        assert load_plain_pickle(tmp_path / "a.p") == [{"sent": "left man", "id": 12, "raw": "café"}]

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04]", b"\x80\x05\x95\xff", b"(lp0\nS'a\n", b"I1\nb."])
    def test_damage_is_one_line(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.p").write_bytes(content)
        with pytest.raises(DataError, match="is no pickle, or a damaged one") as caught:
            load_plain_pickle(tmp_path / "a.p")
        assert "\n" not in str(caught.value)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="not found"):
            load_plain_pickle(tmp_path / "a.p")
