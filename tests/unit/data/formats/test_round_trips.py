"""A hundred random data sets of each format: written, read, and by way of COCO; annotations only, no pixels decoded."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from random_datasets import FORMATS, assert_same_annotations, datasets

from deixis.data.formats import read_dataset
from deixis.data.formats.table import WRITTEN
from deixis.data.formats.writing import not_kept, write_dataset
from deixis.data.sets.embedded import records
from deixis.records import Dataset, Sample, SampleList

# beartype checks an element of a list that it picks by `random`, inside strategies too
pytestmark = [
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning"),
    pytest.mark.slow,
]  # a hundred random data sets per format
pytest.importorskip("pyarrow", reason="parquet is an extra; pip install 'deixis[parquet]'")

SETS = 100


class Pictures:
    """One file for each size and place in a data set, shared by all data sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def under(self, dataset: SampleList) -> SampleList:
        """The data set with files in the place of its pixels."""
        samples = (one.evolve(image=self.file(place, one)) for place, one in enumerate(dataset.samples))
        return SampleList(tuple(samples), dataset.vocabulary)

    def file(self, place: int, sample: Sample) -> Path:
        """Formats without ids order images by their names, so these begin with the place."""
        height, width = sample.size_hw
        file = self.folder / f"{place}_{height}x{width}.png"
        if not file.exists():
            Image.new("L", (width, height)).save(file)
        return file


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures(tmp_path_factory.mktemp("pictures"))


def there_and_back(dataset: Dataset, format: str, home: Path) -> SampleList:
    """What is read of what was written, without the files."""
    read = read_dataset(write_dataset(dataset, home / format, format, images="link"))
    return SampleList(tuple(records(read)), read.vocabulary)


def assert_same(one: SampleList, other: SampleList) -> None:
    assert one.vocabulary == other.vocabulary
    for mine, theirs in zip(one.samples, other.samples, strict=True):
        assert_same_annotations(mine, theirs)


@pytest.mark.parametrize("format", FORMATS)
@settings(deadline=None, max_examples=SETS)
@given(data=st.data())
def test_what_the_record_claims_comes_back_and_goes_through_coco(
    format: str, pictures: Pictures, data: st.DataObject
) -> None:
    dataset = pictures.under(data.draw(datasets(format)))
    assert not_kept(dataset, format) == []
    with TemporaryDirectory() as home:
        once = there_and_back(dataset, format, Path(home) / "1")
        assert_same(dataset, once)
        if format == "coco" or data.draw(st.integers(0, 3)):  # every fourth set goes by way of COCO
            return
        coco = there_and_back(pictures.under(once), "coco", Path(home) / "2")
        back = there_and_back(pictures.under(coco), format, Path(home) / "3")
    if not not_kept(once, "coco") and not not_kept(coco, format):
        assert_same(once, back)
    for mine, theirs in zip(once.samples, back.samples, strict=True):
        crowds = WRITTEN[format].holds.crowds
        kept = mine.instances if crowds else mine.instances.select(~mine.instances.is_crowd)
        assert [mine.vocabulary.names[i] for i in kept.class_ids] == [
            theirs.vocabulary.names[i] for i in theirs.instances.class_ids
        ]
        np.testing.assert_allclose(kept.boxes_xyxy_px, theirs.instances.boxes_xyxy_px, atol=1e-6)
