"""CreateML's files beside supervision's reader and writer, on the same set."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from fuzz.detection import small_set

from deixis.data.formats import read_dataset
from deixis.data.formats.writing import write_dataset
from deixis.records import Dataset

supervision = pytest.importorskip("supervision", reason="compares with supervision; pip install supervision")


def by_image(dataset: Dataset) -> dict[str, list[tuple[str, list[float]]]]:
    found = {}
    for sample in (dataset[index] for index in range(len(dataset))):
        names = [sample.vocabulary.names[i] for i in sample.instances.class_ids]
        boxes = sample.instances.boxes_xyxy_px.tolist()
        found[Path(str(sample.image)).name] = sorted(zip(names, boxes, strict=True))
    return found


def of_supervision(dataset: object) -> dict[str, list[tuple[str, list[float]]]]:
    found = {}
    for path, _, detections in dataset:  # type: ignore[attr-defined]
        ids = [] if detections.class_id is None else detections.class_id.tolist()
        names = [dataset.classes[i] for i in ids]  # type: ignore[attr-defined]
        found[Path(path).name] = sorted(zip(names, detections.xyxy.tolist(), strict=True))
    return found


def test_both_read_the_same_and_each_reads_what_the_other_wrote(tmp_path: Path) -> None:
    written = write_dataset(small_set(Random(3), 4), tmp_path / "ours", "createml")
    ours = by_image(read_dataset(written))
    theirs = supervision.DetectionDataset.from_createml(str(written.parent), str(written))
    assert of_supervision(theirs) == ours
    theirs.as_createml(str(tmp_path / "theirs"), str(tmp_path / "theirs" / "annotations.json"))
    again = by_image(read_dataset(tmp_path / "theirs"))
    assert again.keys() == ours.keys()
    for name, objects in ours.items():
        assert [label for label, _ in again[name]] == [label for label, _ in objects]
        for (_, mine), (_, other) in zip(objects, again[name], strict=True):
            np.testing.assert_allclose(other, mine, atol=1e-3)
