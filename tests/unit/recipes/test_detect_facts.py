"""The fingerprint by which a run that resumes knows its data."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from deixis.data.scenes.from_text import read_scenes
from deixis.data.sets.embedded import EmbeddedDataset
from deixis.data.sets.mixing import Joined
from deixis.data.sets.subset import Subset
from deixis.recipes.detect.data.facts import fingerprint
from deixis.records import Dataset, Instances, Sample, Vocabulary

VOCABULARY = Vocabulary(("cat", "dog"))


def inside(box: list[float], class_id: int = 0) -> EmbeddedDataset:
    """Two pictures inside their annotation file, as parquet and labelme have them."""
    file = BytesIO()
    Image.new("RGB", (20, 20)).save(file, "PNG")
    boxes = ([1.0, 1.0, 5.0, 5.0], box)
    records = tuple(
        Sample(Path(f"{i}.png"), (20, 20), Instances.build([box], [class_id]), VOCABULARY, i)
        for i, box in enumerate(boxes)
    )
    return EmbeddedDataset(records, VOCABULARY, "train", lambda index: file.getvalue())


@pytest.mark.parametrize("wrapped", [lambda found: found, lambda found: Subset(found, (1,)), lambda x: Joined([x, x])])
def test_changed_annotations_of_embedded_pictures_are_noticed(wrapped) -> None:
    def of(dataset: Dataset) -> str:
        return fingerprint(wrapped(dataset))

    assert of(inside([1, 1, 9, 9])) == of(inside([1, 1, 9, 9]))
    others = {of(inside([1, 1, 9, 9])), of(inside([1, 1, 9, 8])), of(inside([1, 1, 9, 9], class_id=1))}
    assert len(others) == 3


def test_generated_scenes_are_known_by_their_text() -> None:
    dataset = read_scenes("scenes:split=demo_train,count=3,seed=1")
    assert fingerprint(dataset) == f"{dataset.name} (3 images)"
