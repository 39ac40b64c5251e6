"""Detections as users hold them: a sequence, chosen from, drawn, saved, converted and converted back."""

from __future__ import annotations

import csv
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data.formats import read_dataset
from deixis.data.inputs.pictures import Picture
from deixis.errors import DataError, OptionError
from deixis.geometry.pixel_boxes import nms
from deixis.records import Vocabulary
from deixis.results.detections import Detection, Detections

BOXES = np.array([[10.0, 20, 50, 40], [12, 20, 50, 42], [0, 0, 9, 9], [10, 20, 50, 40]])


def found(**changes: object) -> Detections:
    values = {"scores": np.array([0.9, 0.8, 0.4, 0.3]), "class_ids": np.array([0, 0, 1, 1])}
    return replace(Detections(BOXES, **values, names=("cat", "a <dog>"), image_id=7, size_hw=(60, 80)), **changes)


@pytest.fixture
def seen(tmp_path: Path) -> Detections:
    path = tmp_path / "garden.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    return found(image=Picture(str(path), path, path))


def test_is_a_sequence() -> None:
    whole = found()
    assert whole[0] == Detection("cat", 0.9, (10.0, 20.0, 50.0, 40.0), 0)
    assert whole[-1].label == "a <dog>"
    assert whole[0].area_px == 800
    assert [one.score for one in whole] == [0.9, 0.8, 0.4, 0.3]
    assert (
        whole[1:3] == whole[[1, 2]] == whole[np.array([False, True, True, False])] == whole[[False, True, True, False]]
    )
    assert whole[1:3] != whole[1:2]
    assert len(whole[[]]) == 0
    assert not whole[[]]
    assert whole[whole.scores > 0.5].labels == ["cat", "cat"]
    assert whole[0] in whole
    with pytest.raises(IndexError):
        _ = whole[4]
    with pytest.raises(IndexError):
        _ = whole[np.array([True])]
    with pytest.raises(TypeError, match="an index must be"):
        _ = whole["cat"]
    assert pickle.loads(pickle.dumps(whole)) == whole  # noqa: S301 - our own
    assert whole != found(size_hw=(60, 81))
    assert whole != 3


def test_reads_well() -> None:
    assert repr(found()) == "Detections(4 objects in 80x60 pixels: 2 cat, 2 a <dog>)"
    assert repr(found()[:1]) == "Detections(1 object in 80x60 pixels: 1 cat)"
    assert repr(found()[:0]) == "Detections(0 objects in 80x60 pixels)"


def test_is_chosen_from() -> None:
    whole = found()
    assert whole.filter(names="cat").scores.tolist() == [0.9, 0.8]
    assert whole.filter(names=["cat", "a <dog>"], min_score=0.4, min_area=100).scores.tolist() == [0.9, 0.8]
    with pytest.raises(OptionError, match=r"'cats' is not among.*did you mean 'cat'"):
        whole.filter(names=["cats"])
    assert whole.with_nms().scores.tolist() == [0.9, 0.4, 0.3]
    assert whole.with_nms(class_agnostic=True).scores.tolist() == [0.9, 0.4]
    assert whole.with_nms(iou=1.0).scores.tolist() == [0.9, 0.8, 0.4, 0.3]
    with pytest.raises(OptionError, match="between 0 and 1, got 50"):
        whole.with_nms(iou=50)


def test_nms_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 60, (200, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 30, (200, 2))], 1)
    scores, groups = rng.uniform(size=200), rng.integers(0, 3, 200)
    kept: list[int] = []
    for i in np.argsort(-scores):
        for j in kept:
            width, height = (min(boxes[i, a + 2], boxes[j, a + 2]) - max(boxes[i, a], boxes[j, a]) for a in (0, 1))
            shared = max(width, 0) * max(height, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[j])]
            if groups[i] == groups[j] and shared / (sum(areas) - shared) >= 0.4:
                break
        else:
            kept.append(int(i))
    assert nms(boxes, scores, 0.4, groups=groups).tolist() == sorted(kept)


def test_is_drawn_cropped_and_shown(seen: Detections) -> None:
    assert seen.plot().size == (480, 360)  # enlarged by a whole factor
    cut = seen.crop()
    assert [one.shape for one in cut] == [(20, 40, 3), (22, 38, 3), (9, 9, 3), (20, 40, 3)]
    assert np.array_equal(cut[2], seen.pixels()[:9, :9])
    assert seen.crop(margin=0.5)[0].shape == (40, 70, 3)
    page = seen._repr_html_()
    assert "data:image/jpeg;base64," in page
    assert "a &lt;dog&gt;" in page
    assert "<dog>" not in page
    with pytest.raises(DataError, match="do not know their image"):
        found().plot()
    assert "do not know their image" in found()._repr_html_()


def test_is_saved_by_suffix(seen: Detections, tmp_path: Path) -> None:
    assert Image.open(seen.save(tmp_path / "out" / "a.jpg")).size == (480, 360)
    assert json.loads(seen.save(tmp_path / "a.json").read_text()) == seen.to_coco()
    assert seen.save(tmp_path / "a.txt").read_text() == seen.to_yolo()
    rows = list(csv.DictReader(io.StringIO(seen.save(tmp_path / "a.csv").read_text())))
    assert [row["label"] for row in rows] == seen.labels
    with pytest.raises(DataError, match=r"a\.gif: results are saved as \.jpg"):
        seen.save(tmp_path / "a.gif")


def test_coco_has_the_vocabularys_ids() -> None:
    first = found().to_coco(Vocabulary(("a <dog>", "cat"), (5, 9)))[0]
    assert first == {"image_id": 7, "category_id": 9, "bbox": [10.0, 20.0, 40.0, 20.0], "score": 0.9}


def test_yolo_and_labelme_are_read_back(seen: Detections, tmp_path: Path) -> None:
    lines = seen.to_yolo(scores=True).splitlines()
    assert [float(v) for v in lines[0].split()] == [0, 30 / 80, 30 / 60, 40 / 80, 20 / 60, 0.9]
    (tmp_path / "garden.json").write_text(json.dumps(seen.to_labelme()))
    again = read_dataset(tmp_path)[0]
    assert again.instances.boxes_xyxy_px.tolist() == BOXES.tolist()
    assert [again.vocabulary.names[i] for i in again.instances.class_ids] == seen.labels
    with pytest.raises(DataError, match="do not know the size"):
        found(size_hw=(0, 0)).to_yolo()


def test_supervision_and_back(seen: Detections) -> None:
    supervision = pytest.importorskip("supervision")
    theirs = seen.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert theirs["class_name"].tolist() == seen.labels
    assert Detections.from_supervision(theirs) == seen
    assert Detections.from_supervision(seen[:0].to_supervision()) == seen[:0]
    kept = theirs.with_nms(threshold=0.5, class_agnostic=False)
    assert Detections.from_supervision(kept) == seen.with_nms(0.5)
    plain = supervision.Detections(xyxy=BOXES[:2], class_id=np.array([4, 2]), data={"class_name": np.array(["a", "b"])})
    assert Detections.from_supervision(plain).labels == ["a", "b"]
    with pytest.raises(DataError, match="give names"):
        Detections.from_supervision(supervision.Detections(xyxy=BOXES[:2], class_id=np.array([4, 2])))


def test_pandas(seen: Detections) -> None:
    pytest.importorskip("pandas")
    table = seen.to_pandas()
    assert table.label.tolist() == seen.labels
    assert list(seen[:0].to_pandas().columns) == list(table.columns)
