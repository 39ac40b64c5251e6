"""Drawn boxes: where they are, and that they can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deixis.records import Instances, Sample, Vocabulary
from deixis.results.detections import Detections
from deixis.results.draw import PALETTE_RGB, class_colour, draw_detections


def _found(
    boxes: list[list[float]], names: tuple[str, ...] = ("cat",), class_ids: list[int] | None = None
) -> Detections:
    class_ids = [0] * len(boxes) if class_ids is None else class_ids
    scores = np.linspace(0.9, 0.5, len(boxes))
    return Detections(np.asarray(boxes, float).reshape(-1, 4), scores, np.asarray(class_ids, np.int64), names)


def _grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def _has(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)).all(-1)


def test_frame_follows_a_wide_box() -> None:
    picture = draw_detections(_grey(600, 800), _found([[300, 400, 700, 500]]))
    assert picture.shape == (600, 800, 3)
    coloured = _has(picture, class_colour(0))
    rows, columns = np.nonzero(coloured)
    assert (columns.min(), columns.max(), rows.max()) == (300, 700, 500)
    assert coloured[450, 300]
    assert coloured[450, 700]
    assert not coloured[450, 500]


def test_original_is_left_alone_and_nothing_drawn_without_objects() -> None:
    image = _grey(500, 500)
    assert np.array_equal(draw_detections(image, _found([])), image)
    draw_detections(image, _found([[10, 10, 200, 90]]))
    assert (image == 128).all()


def test_small_pictures_are_enlarged_with_their_boxes() -> None:
    picture = draw_detections(_grey(50, 100), _found([[20, 20, 80, 40]]))
    assert picture.shape == (250, 500, 3)
    _, columns = np.nonzero(_has(picture, class_colour(0)))
    assert (columns.min(), columns.max()) == (100, 400)


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 900), (900, 3), (40, 10)])
def test_any_picture_and_any_box_can_be_drawn(size_hw: tuple[int, int]) -> None:
    boxes = [[0, 0, size_hw[1], size_hw[0]], [-50, -50, -10, -10], [5, 5, 5, 5], [2000, 2000, 3000, 3000]]
    picture = draw_detections(_grey(*size_hw), _found(boxes, ("a name that is far too long for it " * 9,)))
    assert picture.dtype == np.uint8


def test_names_of_neighbours_do_not_cover_each_other() -> None:
    boxes = [[100.0, 200, 300, 400], [100.0, 200, 300, 400]]
    picture = draw_detections(_grey(600, 600), _found(boxes, ("cat", "dog"), [0, 1]))
    for class_id in (0, 1):
        rows = np.count_nonzero(_has(picture, class_colour(class_id)), axis=1)
        filled = int((rows > 40).sum())  # rows of the patch behind the name, which no frame's sides explain
        assert filled >= 12


def test_truth_is_drawn_with_its_crowds_named() -> None:
    vocabulary = Vocabulary(("cat", "dog"))
    plain = Instances.build([[50.0, 50, 450, 450]], [1])
    crowd = Instances.build([[50.0, 50, 450, 450]], [1], [True])
    pictures = [
        draw_detections(_grey(500, 500), Sample(Path("a.jpg"), (500, 500), objects, vocabulary))
        for objects in (plain, crowd)
    ]
    assert _has(pictures[0], class_colour(1)).any()
    assert _has(pictures[1], class_colour(1)).sum() > _has(pictures[0], class_colour(1)).sum(), "a longer name"


def test_class_colours_differ_well_beyond_the_palette() -> None:
    colours = [class_colour(i) for i in range(40)]
    assert len(set(colours)) == 40
    assert colours[: len(PALETTE_RGB)] == list(PALETTE_RGB)
