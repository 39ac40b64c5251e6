"""Clips, masklets and what is said of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from clip_miniatures import moving_bar
from pycocotools import mask as coco_mask

from deixis.data.pixels.frames import ArrayFrames
from deixis.errors import DataError
from deixis.video_records import Clip, ClipExpression, Masklet


def rle(left: int, right: int, size_hw: tuple[int, int] = (32, 48)) -> dict[str, Any]:
    bitmap = np.zeros(size_hw, np.uint8, order="F")
    bitmap[:, left:right] = 1
    return coco_mask.encode(bitmap)


def clip(**changes: Any) -> Clip:
    """Nine frames, three labelled; object 7 vanishes, object 8 comes late."""
    return Clip(
        **{
            "frames": ArrayFrames(moving_bar(9)),
            "labelled": (0, 4, 8),
            "masklets": (Masklet((rle(0, 4), rle(4, 8), None), 7), Masklet((None, rle(10, 20), rle(10, 22)), 8)),
            "expressions": (
                ClipExpression(("the bar", "the left one"), (0,)),
                ClipExpression(("everything",), (0, 1), ("several",)),
                ClipExpression(("a dog",), ()),
                ClipExpression((), (1,)),
            ),
            "source": "set.json: video v1",
            **changes,
        }
    )


def test_masks_of_a_frame_are_those_of_the_objects_meant() -> None:
    it = clip()
    both = it.expressions[1]
    assert [len(it.masks_at(both, label)) for label in range(3)] == [1, 2, 1]
    assert it.masks_at(both, 2) == (rle(10, 22),)
    assert it.masks_at(it.expressions[2], 0) == ()


def test_a_frame_as_an_image_of_its_own() -> None:
    sample = clip().sample_at(2)
    np.testing.assert_array_equal(np.asarray(sample.image), moving_bar(9)[8])
    assert [e.texts for e in sample.expressions] == [("the bar", "the left one"), ("everything",), ("a dog",), ()]
    assert [len(e.masks_rle) for e in sample.expressions] == [0, 1, 0, 1]
    assert sample.source == "set.json: video v1 frame 8"
    assert len(clip().sample_at(0).expressions) == 3, "a masklet without sentences that is not to be seen is left out"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelled": (0, 4, 4)}, "labelled frames must ascend"),
        ({"labelled": (0, 4, 9)}, "labels are given for frames 0 to 9, the video has 9; get the video"),
        ({"labelled": (0, 4)}, "masklet 7 has 3 entries for 2 labelled frames"),
        (
            {"masklets": (Masklet((None, rle(0, 1, (30, 48)), None), 3),), "expressions": ()},
            r"video v1: masklet 3: its mask of frame 4 is \(30, 48\), the frames are \(32, 48\)",
        ),
        ({"expressions": (ClipExpression(("a",), (2,)),)}, r"\['a'\] refers to masklets \[2\], there are 2"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        clip(**changes)


def test_expressions_without_sense() -> None:
    for texts, masklets, message in (((" ",), (0,), "blank"), ((), (), "has neither"), (("a",), (1, 1), "twice")):
        with pytest.raises(DataError, match=message):
            ClipExpression(texts, masklets)


def test_a_clip_without_labels_is_a_video() -> None:
    assert Clip(ArrayFrames(moving_bar(2))).labelled == ()
