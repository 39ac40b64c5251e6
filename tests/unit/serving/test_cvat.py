"""The auto-annotation function, as CVAT's own driver loads it, checks its spec and maps its shapes."""

from __future__ import annotations

import importlib
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="serving is an extra; pip install 'deixis[serve]'")
pytest.importorskip("cvat_sdk.auto_annotation", reason="CVAT's functions need cvat-sdk; pip install cvat-sdk")
from cvat_sdk import models as cvat_models
from cvat_sdk.auto_annotation import driver
from cvat_sdk.masks import decode_mask
from small_segmenters import tiny_segmenter
from stand_in_server import StandInDetector

from deixis.errors import OptionError
from deixis.geometry.rle import bitmap_rle
from deixis.inference.refer.prompted_masks import PromptedMask, PromptedMasks
from deixis.inference.refer.segmenter import Segmenter
from deixis.serving.labelling.cvat import DetectionFunction
from deixis.serving.labelling.cvat_clicks import InteractionFunction
from deixis.serving.models import Models

IMAGE = Image.new("RGBA", (60, 40), (90, 60, 30, 255))


def context(threshold: float | None = None, polygons: bool = False) -> Any:
    return SimpleNamespace(frame_name="a.png", conf_threshold=threshold, conv_mask_to_poly=polygons)


def mapped(function: DetectionFunction, shapes: list[Any], polygons: bool = False) -> list[Any]:
    """What CVAT makes of shapes for a task with the labels under other ids; raises where they break its rules."""
    kind = function.spec.labels[0].type
    labels = [
        cvat_models.Label(id=70 + one.id, name=one.name, type="any", attributes=[], sublabels=[], _check_type=False)
        for one in function.spec.labels
    ]
    mapper = driver._AnnotationMapper(
        logging.getLogger("cvat"),
        function.spec.labels,
        labels,
        allow_unmatched_labels=False,
        conv_mask_to_poly=polygons,
    )
    assert kind in ("rectangle", "mask")
    mapper.validate_and_remap(shapes, 5)
    return shapes


def test_boxes_without_a_segmenter() -> None:
    function = DetectionFunction(Models({"d": StandInDetector()}, {}), ["cat", "dog"])
    assert [(one.id, one.name, one.type) for one in function.spec.labels] == [
        (0, "cat", "rectangle"),
        (1, "dog", "rectangle"),
    ]
    found = mapped(function, function.detect(context(0.7), IMAGE))
    assert [(one.type.value, one.label_id, one.frame, one.points) for one in found] == [
        ("rectangle", 70, 5, [0.0, 0.0, 30.0, 40.0]),
        ("rectangle", 71, 5, [0.0, 0.0, 30.0, 40.0]),
    ]


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A ring and, apart from it, a pixel; and of the second object nothing."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:25, 10:40] = 1
    mask[10:15, 20:30] = 0
    mask[35, 50] = 1
    found = [PromptedMask(bitmap_rle(one), "box", 0.9) for one in (mask, np.zeros_like(mask))]
    monkeypatch.setattr(PromptedMasks, "in_boxes", lambda *_: found)
    return mask


def test_masks_with_one(masks: np.ndarray) -> None:
    function = DetectionFunction(Models({"d": StandInDetector()}, {"s": Segmenter(tiny_segmenter())}), ["cat", "dog"])
    assert {one.type for one in function.spec.labels} == {"mask"}
    (shape,) = mapped(function, function.detect(context(), IMAGE))
    assert (shape.type.value, shape.label_id) == ("mask", 70)
    assert np.array_equal(decode_mask(shape.points, image_width=60, image_height=40), masks.astype(bool))
    polygons = mapped(function, function.detect(context(polygons=True), IMAGE), polygons=True)
    assert [one.type.value for one in polygons] == ["polygon", "polygon"], "two parts, and the hole is none"
    assert [len(one.points) for one in polygons] == [8, 8]


def prompts(inside: Any = (), beside: Any = (), box: Any = None) -> Any:
    return SimpleNamespace(pos_points=inside, neg_points=beside, bounding_box=box)


def test_a_persons_points_and_box_become_a_mask(masks: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def at_clicks(self: Any, pixels: Any, points: Any, inside: Any, box: Any = None) -> PromptedMask:
        asked.append((points.tolist(), inside.tolist(), None if box is None else box.tolist()))
        return PromptedMask(bitmap_rle(masks if inside[0] else np.zeros_like(masks)), "clicks", 0.875)

    monkeypatch.setattr(PromptedMasks, "at_clicks", at_clicks)
    monkeypatch.setattr(PromptedMasks, "in_boxes", lambda *_: [PromptedMask(bitmap_rle(masks), "box", 0.5)])
    function = InteractionFunction(Segmenter(tiny_segmenter()))
    assert (function.spec.min_pos_points, function.spec.min_neg_points, function.spec.min_bounding_boxes) == (0, 0, 0)
    box = ((10.0, 5.0), (40.0, 25.0))
    for given, sure in ((prompts([(20.0, 8.0)], [(50.0, 3.0)], box), 0.875), (prompts(box=box), 0.5)):
        (shape,) = function.detect(None, IMAGE, given)
        assert np.array_equal(decode_mask(shape.points, image_width=60, image_height=40), masks.astype(bool))
        assert (shape.type, [float(one.value) for one in shape.attributes]) == ("mask", [sure])
    assert asked == [([[20, 8], [50, 3]], [True, False], [10, 5, 40, 25])]
    assert function.detect(None, IMAGE, prompts(beside=[(1.0, 1.0)])) == [], "nothing is on the object"


def test_the_command_line_loads_it_by_its_module() -> None:
    module = importlib.import_module("deixis.serving.labelling.cvat")
    with pytest.raises(OptionError, match="no model to serve"):
        module.create()
    with pytest.raises(OptionError, match="no detector '' is served"):
        DetectionFunction(Models({}, {"s": Segmenter(tiny_segmenter())}), ["a"])
    unnamed = StandInDetector()
    type(unnamed).names, names = (), type(unnamed).names  # type: ignore[assignment, misc]
    try:
        with pytest.raises(OptionError, match="names: are required"):
            DetectionFunction(Models({"d": unnamed}, {}))
    finally:
        type(unnamed).names = names  # type: ignore[method-assign]
    assert DetectionFunction(Models({"d": StandInDetector()}, {})).names == ("cat",)
