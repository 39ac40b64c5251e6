"""The simulated annotator leaves what is true, whatever it finds, and counts what it draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_reviews import NAMES, small_review, small_set

from deixis.data.formats import read_dataset
from deixis.records import Instances
from deixis.review.predicted import open_images, order_queue
from deixis.review.simulated import answer_image
from deixis.review.views import effort, images


def test_whatever_is_there_the_truth_is_left(tmp_path: Path) -> None:
    truth = small_set(tmp_path / "images")
    second = truth[1].evolve(instances=Instances.build([[5, 5, 25, 15.0], [31, 10, 59, 35], [0, 30, 9, 39]], [1, 0, 2]))
    third = truth[2].evolve(instances=Instances.build([[10, 10, 30, 29.0]], [1]))
    with small_review(tmp_path) as store:
        answer_image(store, 1, truth[0])
        assert effort(store) == {"accept": 1, "finish": 1}
        answer_image(store, 2, second)
        # the dog is there twice, as itself and as a cat; the other cat is moved; a größe is drawn
        assert effort(store) == {"accept": 2, "finish": 2, "move": 1, "reject": 1, "add": 1}
        answer_image(store, 3, third)
        assert effort(store)["rename"] == 1
        answer_image(store, 2, second)
        assert (effort(store)["add"], effort(store)["move"]) == (1, 1), "again, it has nothing to do"
        assert open_images(store)[0] == []
    read = read_dataset(tmp_path)
    for number, one in enumerate((truth[0], second, third)):
        found = read[number].instances
        order, wanted = np.argsort(found.class_ids), np.argsort(one.instances.class_ids)
        assert found.class_ids[order].tolist() == one.instances.class_ids[wanted].tolist()
        np.testing.assert_allclose(found.boxes_xyxy_px[order], one.instances.boxes_xyxy_px[wanted], atol=2)
    assert read.vocabulary.names == NAMES


def test_orders(tmp_path: Path) -> None:
    with small_review(tmp_path) as store:
        ids, open_set = open_images(store)
        assert (ids, len(open_set), open_set[1].size_hw) == ([1, 2, 3], 3, (40, 60))
        seen = set()
        for seed in range(8):
            with store.changing():
                order_queue(store, "random", seed)
            seen.add(tuple(row["id"] for row in images(store)))
        assert len(seen) > 2
        with store.changing():
            order_queue(store, "label_error", 0)
        assert images(store)[0]["id"] == 2
        values = store.rows("SELECT worth, label_error FROM images")
        assert [row["worth"] for row in values] == pytest.approx([row["label_error"] for row in values])
