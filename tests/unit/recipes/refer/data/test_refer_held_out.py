"""Images held out of data sets of phrases: never a copy of one that is trained on, in whichever data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.errors import DataError
from deixis.recipes.refer.data.splits import held_out
from deixis.refer_records import Expression, ReferList, ReferSample

PAIRS = 12


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """Each picture twice: as it is, and compressed further."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    paths = []
    for number in range(PAIRS):
        small = Image.fromarray(generator.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        picture = small.resize((80, 60), Image.Resampling.BICUBIC)
        for name, quality in (("a", 95), ("b", 60)):
            paths.append(folder / f"{number:02}{name}.jpg")
            picture.save(paths[-1], quality=quality)
    return paths


def data(paths: list[Path], name: str = "data") -> ReferList:
    return ReferList(tuple(ReferSample(path, (60, 80), (Expression(("it",), ()),)) for path in paths), name)


def pictures(part) -> set[str]:
    """The pictures shown, copies alike."""
    return {part[i].image.stem[:2] for i in range(len(part))}


def test_copies_are_held_out_together(photos) -> None:
    ((training, validation),) = held_out([data(photos)])
    assert 2 <= len(validation) <= 4
    assert len(training) + len(validation) == 2 * PAIRS
    assert not pictures(training) & pictures(validation)


def test_no_data_set_trains_on_what_another_holds_out(photos) -> None:
    """Two data sets of the same photographs, and scenes beside them."""
    sources = [data(photos[::2], "plain"), data(photos[1::2], "copies"), refer_scenes("refer_train", 30, 1)]
    parts = held_out(sources)
    trained = pictures(parts[0][0]) | pictures(parts[1][0])
    measured = pictures(parts[0][1]) | pictures(parts[1][1])
    assert trained
    assert measured
    assert not trained & measured
    assert (len(parts[2][0]), len(parts[2][1])) == (27, 3)
    assert all(len(validation) for _, validation in parts)


def test_the_same_images_every_time(photos) -> None:
    first, again = (held_out([data(photos)])[0] for _ in range(2))
    assert [part.indices for part in first] == [part.indices for part in again]


def test_nothing_left_to_train_on_is_an_error(photos) -> None:
    with pytest.raises(DataError, match="give --val-data"):
        held_out([data(photos[:2])])
