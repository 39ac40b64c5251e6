"""Windows of large pictures, and one detection for what several of them show."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from deixis.errors import OptionError
from deixis.inference.detect.detector import Detector, load_detector
from deixis.inference.detect.slices import Window, joined, require_slices, windows_of
from deixis.results.detections import Detections

SIZE = (100, 180)
WINDOWS: list[Window] = [(0, 0, 180, 100), (0, 0, 100, 100), (80, 0, 180, 100)]


def found(*rows: tuple[float, float, float, float, float], class_id: int = 0) -> Detections:
    values = np.array(rows, float).reshape(-1, 5)
    return Detections(values[:, :4], values[:, 4], np.full(len(rows), class_id, np.int64), ("cat", "dog"))


def boxes(*parts: Detections, count: int = 100) -> list[list[float]]:
    return joined(parts, WINDOWS, SIZE, count).boxes_xyxy_px.tolist()


@pytest.mark.parametrize("size_hw", [(100, 180), (99, 1001), (300, 101), (640, 480), (101, 101)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_windows_cover_the_picture_and_overlap(size_hw: tuple[int, int], overlap: float) -> None:
    whole, *windows = windows_of(size_hw, 100, overlap, model_short_px=800)
    assert whole == (0, 0, size_hw[1], size_hw[0])
    seen = np.zeros(size_hw, int)
    for left, top, right, bottom in windows:
        assert right - left == min(100, size_hw[1])
        assert bottom - top == min(100, size_hw[0])
        seen[top:bottom, left:right] += 1
    assert seen.min() == 1
    lefts = sorted({window[0] for window in windows})
    assert all(b - a <= 100 * (1 - overlap) + 1 for a, b in pairwise(lefts))


def test_small_pictures_are_seen_whole() -> None:
    assert windows_of((100, 100), 100, 0.2, model_short_px=800) == [(0, 0, 100, 100)]
    assert len(windows_of((900, 4000), "auto", 0.2, model_short_px=800)) == 1
    assert len(windows_of((2160, 3840), "auto", 0.2, model_short_px=800)) == 1 + 4 * 6
    assert len(windows_of((2160, 3840), None, 0.2, model_short_px=800)) == 1


def test_what_two_windows_show_is_found_once() -> None:
    assert boxes(found(), found((85, 40, 95, 60, 0.8)), found((5, 40, 15, 60, 0.9))) == [[85, 40, 95, 60]]


def test_a_whole_object_wins_over_a_better_part_of_it() -> None:
    part, whole = found((90, 40, 100, 60, 0.9)), found((10, 40, 40, 60, 0.6))
    assert boxes(found(), part, whole) == [[90, 40, 120, 60]]
    unlikely = found((10, 40, 40, 60, 0.01))  # a guess does not replace a sure detection
    assert [90.0, 40.0, 100.0, 60.0] in boxes(found(), part, unlikely)


def test_objects_beside_and_inside_each_other_stay() -> None:
    inside = found((10, 10, 60, 60, 0.9), (20, 20, 30, 30, 0.8))
    assert len(boxes(found(), inside, found())) == 2
    crowd = found((10, 10, 60, 60, 0.9), (12, 10, 62, 60, 0.8))  # of one window: the model's own decision
    assert len(boxes(found(), crowd, found())) == 2
    assert len(boxes(found((22, 22, 28, 28, 0.7)), found((10, 10, 60, 60, 0.9)), found())) == 2
    other = found((5, 40, 15, 60, 0.9), class_id=1)
    assert len(boxes(found(), found((85, 40, 95, 60, 0.8)), other)) == 2


def test_the_best_of_all_come_first() -> None:
    parts = (found((0, 0, 180, 90, 0.3)), found((10, 10, 20, 20, 0.5)), found((60, 60, 70, 70, 0.7)))
    everything = joined(parts, WINDOWS, SIZE, 2)
    assert everything.scores.tolist() == [0.7, 0.5]
    assert everything.size_hw == SIZE


def slowly_joined(parts: list[Detections], windows: list[Window]) -> set[tuple[float, ...]]:
    """The rule, box by box: from the best down, each kept one removes the same object in other windows."""
    rows = []  # (weighed score, -place, box, class, window, cut)
    for number, (part, (left, top, right, bottom)) in enumerate(zip(parts, windows, strict=True)):
        for box, score, class_id in zip(part.boxes_xyxy_px, part.scores, part.class_ids, strict=True):
            x1, y1, x2, y2 = box + np.array([left, top, left, top])
            cut = (x1 <= left + 2 and left > 0) or (y1 <= top + 2 and top > 0)
            cut = cut or (x2 >= right - 2 and right < SIZE[1]) or (y2 >= bottom - 2 and bottom < SIZE[0])
            rows.append((score / (2 if cut else 1), -len(rows), (x1, y1, x2, y2), class_id, number, cut, score))
    kept: list[tuple] = []
    for row in sorted(rows, reverse=True):
        for good in kept:
            (a, b, c, d), (e, f, g, h) = good[2], row[2]
            shared = max(min(c, g) - max(a, e), 0) * max(min(d, h) - max(b, f), 0)
            areas = (c - a) * (d - b), (g - e) * (h - f)
            inside = row[5] and areas[1] <= areas[0] and shared >= 0.5 * areas[1]
            if (good[3], True) == (row[3], good[4] != row[4]) and (shared >= 0.5 * (sum(areas) - shared) or inside):
                break
        else:
            kept.append(row)
    return {(*row[2], row[6]) for row in kept}


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_those_of_the_rule_one_by_one(seed: int) -> None:
    chance = np.random.default_rng(seed)
    windows = windows_of(SIZE, 50, 0.3, model_short_px=800)
    parts = []
    for left, top, right, bottom in windows:
        count = int(chance.integers(0, 25))
        sides = np.array([right - left, bottom - top])
        start = chance.integers(-4, sides - 4, (count, 2))  # whole pixels: ends that touch, and boxes beyond a window
        boxes_xyxy_px = np.concatenate([start, start + chance.integers(2, sides, (count, 2))], 1).astype(float)
        scores, class_ids = chance.integers(1, 9, count) / 10, chance.integers(0, 2, count)  # many are equal
        parts.append(Detections(boxes_xyxy_px, scores, class_ids, ("cat", "dog")))
    all_at_once = joined(parts, windows, SIZE, 10_000)
    expected = slowly_joined(parts, windows)
    assert len(expected) < sum(map(len, parts)) - 20
    rows = np.column_stack([all_at_once.boxes_xyxy_px, all_at_once.scores])
    assert set(map(tuple, rows.tolist())) == expected


@pytest.mark.parametrize(("slice", "overlap"), [(8, 0.2), ("half", 0.2), (True, 0.2), (100, 1.0), (100, float("nan"))])
def test_what_cannot_be_a_slice_is_an_error(slice: object, overlap: float) -> None:
    with pytest.raises(OptionError, match=r"(slice|overlap): expected"):
        require_slices(slice, overlap)  # type: ignore[arg-type]


def test_a_sliced_picture_has_the_boxes_of_its_windows_in_its_own_frame() -> None:
    detector = load_detector("builtin", "cpu")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 120, 3), np.uint8)
    names = ["red circle", "blue square"]
    sliced = Detector(detector.bundle, "cpu", slice=64, overlap=0.0).predict(pixels, names, 0.0, max_detections=40)[0]
    assert sliced.size_hw == (64, 120)
    parts = [
        detector.predict(pixels[:, a:b], names, 0.0, max_detections=40)[0] for a, b in ((0, 120), (0, 64), (56, 120))
    ]
    windows: list[Window] = [(0, 0, 120, 64), (0, 0, 64, 64), (56, 0, 120, 64)]
    expected = joined(parts, windows, (64, 120), 40)
    assert np.allclose(sliced.scores, expected.scores, atol=1e-5)
    assert np.allclose(sliced.boxes_xyxy_px, expected.boxes_xyxy_px, atol=0.05)
