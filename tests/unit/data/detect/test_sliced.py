"""Large images cut into windows: boxes are cut, remains are not judged, formats keep it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.cli.main import run
from deixis.data.detect.sliced import Sliced
from deixis.data.formats import read_dataset
from deixis.data.formats.writing import write_dataset
from deixis.errors import OptionError
from deixis.records import Instances, Sample, SampleList, Vocabulary

PIXELS = np.random.default_rng(0).integers(0, 255, (100, 180, 3), np.uint8)
BOXES = [[70.0, 10, 110, 30], [75, 60, 85, 70], [0, 0, 178, 99]]  # over a border, in both windows, almost all


def data(image: Path | np.ndarray = PIXELS) -> SampleList:
    vocabulary = Vocabulary(("tree", "car", "field"), (5, 6, 9))
    sample = Sample(image, (100, 180), Instances.build(BOXES, [0, 1, 2]), vocabulary, image_id=7, source="a.png")
    return SampleList((sample,), vocabulary, "aerial")


def test_windows_have_what_they_show() -> None:
    sliced = Sliced(data(), 100, overlap=0.2, min_visible=0.6)  # 0 to 100 and 80 to 180
    assert len(sliced) == 2
    left, right = sliced[0], sliced[1]
    assert np.array_equal(left.image, PIXELS[:, :100])
    assert np.array_equal(right.image, PIXELS[:, 80:])
    assert left.instances.boxes_xyxy_px.tolist() == [[70, 10, 100, 30], [75, 60, 85, 70]]  # 3/4, all, 100/178 of them
    assert right.instances.boxes_xyxy_px.tolist() == [[0, 10, 30, 30]]  # 3/4, a half, 98/178
    assert [left.judges(c) for c in range(3)] == [True, True, False]
    assert [right.judges(c) for c in range(3)] == [True, False, False]
    assert (left.image_id, right.image_id) == (1, 2)
    assert (right.source, right.original_size_hw) == ("a.png at 80,0", (100, 100))
    everything = Sliced(data(), 100, overlap=0.2, min_visible=0.01, whole=True)
    assert [len(one.instances) for one in (everything[0], everything[1], everything[2])] == [3, 3, 3]
    assert all(everything[2].judges(c) for c in range(3))


def test_small_images_stay_whole() -> None:
    for whole in (False, True):
        sliced = Sliced(data(), 200, whole=whole)
        assert len(sliced) == 1
        assert sliced[0].instances.boxes_xyxy_px.tolist() == BOXES
    with pytest.raises(OptionError, match="at least 32 pixels, got 8"):
        Sliced(data(), 8)
    with pytest.raises(OptionError, match="min_visible must be above 0"):
        Sliced(data(), 100, min_visible=0)


def test_the_command_writes_what_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    write_dataset(data(tmp_path / "a.png"), tmp_path / "coco", "coco")
    words = ["data", "slice", "--data", str(tmp_path / "coco"), "--slice", "100", "--min-visible", "0.6"]
    assert run([*words, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "1 images with 3 objects became 3 images with 6" in said
    assert "lost in lvis" not in said
    again = read_dataset(said.rsplit("--data ", 1)[1].strip())
    assert again.vocabulary.names == ("tree", "car", "field")
    assert [len(again[i].instances) for i in range(3)] == [3, 2, 1]
    assert [[again[i].judges(c) for c in range(3)] for i in range(3)] == [
        [True, True, True],
        [True, True, False],
        [True, False, False],
    ]
    assert again[1].size_hw == (100, 100)
    assert run([*words, "--to", "coco", "--no-whole", "--output", str(tmp_path / "plain")]) == 0
    assert "lost in coco: " in capsys.readouterr().out
