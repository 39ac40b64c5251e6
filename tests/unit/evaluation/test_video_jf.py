"""J and F: numbers worked by hand, and a slow implementation of its own by distances, on crafted and random masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from clip_miniatures import moving_bar
from pycocotools import mask as coco_mask
from scipy.ndimage import distance_transform_edt

from deixis.data.pixels.frames import ArrayFrames
from deixis.errors import DataError
from deixis.evaluation.video_jf import VideoJF, boundary_f, presence_of, region_similarity
from deixis.video_records import Clip, ClipExpression, Masklet


def square(top: int, left: int, side: int, size_hw: tuple[int, int] = (100, 100)) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def slow_boundary(mask: np.ndarray) -> np.ndarray:
    """The benchmark's definition, pixel by pixel."""
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                if y + dy < height and x + dx < width:
                    edge[y, x] |= mask[y, x] != mask[y + dy, x + dx]
    return edge


def slow_f(found: np.ndarray, wanted: np.ndarray) -> float:
    """By the exact distance of every boundary pixel to the other boundary."""
    reach = math.ceil(0.008 * math.sqrt(found.shape[0] ** 2 + found.shape[1] ** 2))
    ours, theirs = slow_boundary(found), slow_boundary(wanted)
    if not ours.any() and not theirs.any():
        return 1.0
    if not ours.any() or not theirs.any():
        return 0.0
    precision = float((distance_transform_edt(~theirs)[ours] <= reach + 1e-9).mean())
    recall = float((distance_transform_edt(~ours)[theirs] <= reach + 1e-9).mean())
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def blob(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    height, width = size_hw
    ys, xs = np.mgrid[:height, :width]
    mask = np.zeros(size_hw, bool)
    for _ in range(int(rng.integers(1, 4))):
        cy, cx, ry, rx = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(1, height / 2), rng.uniform(1, 15)
        mask |= ((ys - cy) / ry) ** 2 + ((xs - cx) / rx) ** 2 <= 1
    return mask


EMPTY, WHOLE = np.zeros((100, 100), bool), np.ones((100, 100), bool)
LINE = np.zeros((100, 100), bool)
LINE[50, 10:90] = True
CASES = {
    "both empty": (EMPTY, EMPTY),
    "nothing found": (EMPTY, square(20, 20, 40)),
    "something invented": (square(20, 20, 40), EMPTY),
    "the same": (square(20, 20, 40), square(20, 20, 40)),
    "shifted within the tolerance": (square(20, 22, 40), square(20, 20, 40)),
    "shifted beyond it": (square(20, 25, 40), square(20, 20, 40)),
    "far away": (square(0, 0, 20), square(70, 70, 20)),
    "a thin line": (LINE, LINE),
    "a thin line, moved": (LINE, np.roll(LINE, 2, axis=0)),
    "a thin line, moved diagonally": (LINE, np.roll(LINE, (2, 2), axis=(0, 1))),
    "at the frame's edge": (square(0, 0, 30), square(0, 0, 34)),
    "at the other edge": (square(60, 60, 40), square(64, 64, 36)),
    "the whole frame": (WHOLE, square(10, 10, 80)),
    "the whole frame against nothing": (WHOLE, EMPTY),
}


class TestOneFrame:
    def test_hand_worked_j(self) -> None:
        assert region_similarity(EMPTY, EMPTY) == 1
        assert region_similarity(EMPTY, square(20, 20, 40)) == 0
        # a square of 40 moved by 10: 30 x 40 shared, 50 x 40 covered
        assert region_similarity(square(20, 30, 40), square(20, 20, 40)) == pytest.approx(0.6)

    def test_hand_worked_f(self) -> None:
        # the tolerance of 100 x 100 is ceil(0.008 * 141.4) = 2 pixels
        assert boundary_f(EMPTY, EMPTY) == 1
        assert boundary_f(square(20, 20, 40), EMPTY) == 0
        assert boundary_f(EMPTY, square(20, 20, 40)) == 0
        assert boundary_f(square(20, 22, 40), square(20, 20, 40)) == 1, "two pixels off is within the tolerance"
        assert boundary_f(square(0, 0, 20), square(70, 70, 20)) == 0
        # The boundary of a square from 20 to 59 is the ring of rows and columns 19 and 59: 4 * 40 pixels. A square
        # moved by 5 has columns 24 and 64. Of its rows, x from 24 to 59 lie on the other's rows and 60, 61 within 2 of
        # column 59: 38 pixels a row. Of its columns, rows 19 to 21 and 57 to 59 are near the other's rows; in column
        # 24 all six are (two of them counted with the rows), in column 64 none is nearer than 5.
        # Together 2 * 38 + 4 = 80 of 160. The other boundary sees the same from the other side.
        assert boundary_f(square(20, 25, 40), square(20, 20, 40)) == pytest.approx(80 / 160)

    def test_a_mask_of_the_whole_frame_has_no_boundary(self) -> None:
        assert boundary_f(WHOLE, EMPTY) == 1
        assert region_similarity(WHOLE, EMPTY) == 0

    @pytest.mark.parametrize("name", CASES)
    def test_crafted_cases_agree_with_distances(self, name: str) -> None:
        found, wanted = CASES[name]
        assert boundary_f(found, wanted) == pytest.approx(slow_f(found, wanted), abs=1e-12)
        assert boundary_f(wanted, found) == pytest.approx(slow_f(wanted, found), abs=1e-12)

    @pytest.mark.parametrize("size_hw", [(100, 100), (48, 90), (33, 20), (180, 240)])
    def test_random_masks_of_other_sizes_agree_with_distances(self, size_hw: tuple[int, int]) -> None:
        rng = np.random.default_rng(size_hw[0])
        values = []
        for _ in range(4):
            found, wanted = blob(rng, size_hw), blob(rng, size_hw)
            near = wanted ^ (blob(rng, size_hw) & (rng.random(size_hw) < 0.02))
            values += [boundary_f(found, wanted), boundary_f(near, wanted)]
            expected = [slow_f(found, wanted), slow_f(near, wanted)]
            assert values[-2:] == pytest.approx(expected, abs=1e-12)
        assert len(set(values)) > 4, "the cases must differ"


def rle(mask: np.ndarray) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


SIZE_HW = (32, 48)
LEFT, RIGHT = square(4, 4, 12, SIZE_HW), square(8, 30, 12, SIZE_HW)


def clip(*seen: bool, more: tuple[ClipExpression, ...] = (), name: str = "v1") -> Clip:
    """Every second frame labelled; the left square where `seen` says so, the right one always."""
    left = Masklet(tuple(rle(LEFT) if visible else None for visible in seen))
    right = Masklet(tuple(rle(RIGHT) for _ in seen))
    expressions = (ClipExpression(("the left one",), (0,), ("attribute",)), *more)
    frames = ArrayFrames(moving_bar(2 * len(seen)))
    return Clip(frames, tuple(range(0, 2 * len(seen), 2)), (left, right), expressions, name, f"set: {name}")


class TestPhrases:
    def test_frames_first_then_phrases(self) -> None:
        sums = VideoJF()
        short, long = clip(True, True), clip(True, True, True, True, name="v2")
        sums.add(short, short.expressions[0], "the left one", predicted={0: rle(LEFT), 2: rle(RIGHT)})  # 1, 0
        sums.add(
            long, long.expressions[0], "the left one", predicted={i: rle(LEFT) for i in (0, 2, 4, 6)}
        )  # 1, 1, 1, 1
        metrics = sums.result()
        assert metrics.whole.j == pytest.approx((0.5 + 1) / 2), "not 5 of 6 frames"
        assert metrics.whole.f == pytest.approx((0.5 + 1) / 2)
        assert (metrics.whole.phrases, metrics.clips, metrics.frames) == (2, 2, 6)
        assert metrics.as_dict()["J&F"] == pytest.approx(0.75)

    def test_several_objects_are_one_target_and_unlabelled_frames_do_not_count(self) -> None:
        both = ClipExpression(("both",), (0, 1))
        it = clip(True, False, more=(both,))
        sums = VideoJF()
        sums.add(it, both, "both", predicted={0: rle(LEFT | RIGHT), 1: rle(LEFT & RIGHT), 2: rle(RIGHT)})
        assert sums.result().whole.j == 1
        assert sums.result().present_accuracy == 1

    def test_frames_without_the_object(self) -> None:
        it = clip(True, False, False, False)
        sums = VideoJF()
        nothing = rle(np.zeros(SIZE_HW, bool))
        sums.add(it, it.expressions[0], "a", predicted={0: nothing, 2: nothing, 4: rle(LEFT), 6: nothing})
        metrics = sums.result()
        assert metrics.whole.j == pytest.approx((0 + 1 + 0 + 1) / 4)
        assert (metrics.absent_accuracy, metrics.present_accuracy) == (pytest.approx(2 / 3), 0)

    @pytest.mark.parametrize(
        ("seen", "wanted"),
        [
            ((1, 1, 1), ("always",)),
            ((0, 0, 0), ("never",)),
            ((0, 1, 1), ("late",)),
            ((1, 1, 0), ("vanishes",)),
            ((1, 0, 1), ("returns",)),
            ((0, 1, 0), ("late", "vanishes")),
            ((0, 1, 0, 1, 0), ("late", "vanishes", "returns")),
        ],
    )
    def test_presence(self, seen: tuple[int, ...], wanted: tuple[str, ...]) -> None:
        it = clip(*map(bool, seen))
        assert presence_of(it, it.expressions[0]) == wanted

    def test_groups_by_presence_and_tags(self) -> None:
        sums = VideoJF()
        moving = ClipExpression(("the one that stays",), (1,), ("motion", "attribute"))
        it = clip(False, True, False, True, more=(moving,))
        sums.add(it, it.expressions[0], "x", predicted={i: rle(LEFT) for i in (0, 2, 4, 6)})
        sums.add(it, moving, "y", predicted={i: rle(RIGHT) for i in (0, 2, 4, 6)})
        metrics = sums.result()
        assert list(metrics.presence) == ["always", "late", "returns"]
        assert metrics.presence["late"] == metrics.presence["returns"]
        assert (metrics.presence["late"].jf, metrics.presence["always"].jf) == (0.5, 1)
        assert (metrics.tags["attribute"].phrases, metrics.tags["attribute"].j) == (2, 0.75)
        assert metrics.tags["motion"].j == 1

    def test_nothing_added(self) -> None:
        metrics = VideoJF().result()
        assert math.isnan(metrics.whole.jf)
        assert metrics.as_dict() == {"phrases": 0, "by_presence": {}, "by_tags": {}, "clips": 0, "frames": 0}

    def test_what_does_not_fit(self) -> None:
        it = clip(True, True)
        with pytest.raises(DataError, match="'x' has no mask in labelled frame 2"):
            VideoJF().add(it, it.expressions[0], "x", predicted={0: rle(LEFT)})
        with pytest.raises(DataError, match=r"in frame 0 is \(9, 9\), the frame \(32, 48\)"):
            VideoJF().add(it, it.expressions[0], "x", predicted={0: rle(np.zeros((9, 9))), 2: rle(LEFT)})
        with pytest.raises(DataError, match="has no labelled frames"):
            VideoJF().add(Clip(ArrayFrames(moving_bar(1))), it.expressions[0], "x", predicted={})
