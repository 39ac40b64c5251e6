"""Samples and detections as COCO's annotations and results, and what faster-coco-eval counts of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from deixis.errors import DataError
from deixis.records import Sample, Vocabulary
from deixis.results.detections import Detections

MAX_DETECTIONS = 100
MAX_DETECTIONS_FEDERATED = 300  # LVIS's limit: with a thousand classes, most of the best 100 would not count
SMALL_AREA_PX, MEDIUM_AREA_PX = 32**2, 96**2  # an object is small below the first, large above the second
AREA_RANGES_PX = {
    "small": [0, SMALL_AREA_PX],
    "medium": [SMALL_AREA_PX, MEDIUM_AREA_PX],
    "large": [MEDIUM_AREA_PX, 1e10],
}


def detections_per_image(truth: Sequence[Sample]) -> int:
    """How many detections per image to ask for: COCO's 100, or LVIS's 300 where some classes are not annotated."""
    federated = any(sample.absent_class_ids is not None or sample.not_exhaustive_class_ids for sample in truth)
    return MAX_DETECTIONS_FEDERATED if federated else MAX_DETECTIONS


def in_cocos_form(
    truth: Sequence[Sample],
    detections: Sequence[Detections],
    vocabulary: Vocabulary,
    *,
    max_detections: int | None,
    limit: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """COCO's annotations, without ids, and results, those that count."""
    if len(truth) != len(detections):
        raise DataError(
            f"{len(detections)} detection records for {len(truth)} images; expected one per image, in order"
        )
    annotations, results = [], []
    for position, (sample, found) in enumerate(zip(truth, detections, strict=True), start=1):
        if sample.image_id != found.image_id:
            raise DataError(
                f"{sample.source or position}: detections are of image {found.image_id}, expected {sample.image_id}"
            )
        annotations += _annotations(sample, position, vocabulary) + _ignore_regions(sample, position, vocabulary)
        judged = _judged_categories(sample, vocabulary)
        # COCO limits detections per class, LVIS per image.
        by_class = max_detections is None and limit == MAX_DETECTIONS
        kept = _results(found if by_class else found.best(limit), position, vocabulary)
        results += [result for result in kept if judged is None or result["category_id"] in judged]
    return annotations, results


def _annotations(sample: Sample, image_id: int, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """One image's objects as COCO annotations, without ids."""
    rows = _vocabulary_rows(sample.vocabulary.names, vocabulary, sample.source)
    scale_yx = np.divide(sample.original_size_hw, sample.size_hw)
    boxes_xyxy_px = sample.instances.boxes_xyxy_px * np.tile(scale_yx[::-1], 2)  # times (x, y, x, y)
    # height by width: an area grows with both
    areas_px = sample.instances.areas_px * scale_yx.prod()
    return [
        {
            "image_id": image_id,
            "category_id": rows[c] + 1,  # counted from 1, here and in all that follows
            "bbox": _xywh(box),
            "area": float(area),
            "iscrowd": int(crowd),
        }
        for box, c, area, crowd in zip(
            boxes_xyxy_px, sample.instances.class_ids, areas_px, sample.instances.is_crowd, strict=True
        )
    ]


def _results(found: Detections, image_id: int, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """One image's detections as COCO results."""
    rows = _vocabulary_rows(found.names, vocabulary, f"detections of image {found.image_id}")
    return [
        {"image_id": image_id, "category_id": rows[c] + 1, "bbox": _xywh(box), "score": float(score)}
        for box, c, score in zip(found.boxes_xyxy_px, found.class_ids, found.scores, strict=True)
    ]


def _judged_categories(sample: Sample, vocabulary: Vocabulary) -> set[int] | None:
    """COCO ids of the classes whose detections count in an image; None for all of them."""
    if sample.absent_class_ids is None:
        return None
    rows = _vocabulary_rows(sample.vocabulary.names, vocabulary, sample.source)
    # LVIS, arXiv 1908.03195: a class is judged where the image is in its positive or its negative set
    return {rows[c] + 1 for c in sample.absent_class_ids | sample.present_class_ids}


def _ignore_regions(sample: Sample, image_id: int, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """A crowd far larger than the image for each class not annotated exhaustively, so that unmatched detections do not
    count."""
    if not sample.not_exhaustive_class_ids:
        return []
    rows = _vocabulary_rows(sample.vocabulary.names, vocabulary, sample.source)
    return [
        {"image_id": image_id, "category_id": rows[c] + 1, "bbox": [-1e6, -1e6, 2e6, 2e6], "area": 4e12, "iscrowd": 1}
        for c in sorted(sample.not_exhaustive_class_ids)
    ]


def _vocabulary_rows(names: tuple[str, ...], vocabulary: Vocabulary, where: str) -> list[int]:
    """The vocabulary's index of each name."""
    if names == vocabulary.names:
        return list(range(len(names)))
    index = {name: i for i, name in enumerate(vocabulary.names)}
    unknown = [name for name in names if name not in index]
    if unknown:
        raise DataError(f"{where}: class names {unknown} are not among the evaluated {list(vocabulary.names)}")
    return [index[name] for name in names]


def _xywh(box_xyxy_px: Float[np.ndarray, " 4"]) -> list[float]:
    """COCO's box: left, top, width, height."""
    x0, y0, x1, y1 = (float(v) for v in box_xyxy_px)
    return [x0, y0, x1 - x0, y1 - y0]


def accumulated(
    annotations: list[dict[str, Any]], results: list[dict[str, Any]], *, images: int, classes: int, limit: int
) -> tuple[Float[np.ndarray, "thresholds recalls classes areas"], Float[np.ndarray, "thresholds classes areas"]]:
    """COCO's precision and recall, -1 where there is no object; the areas are all, small, medium and large."""
    if not images or not annotations:
        return np.full((10, 101, classes, 4), -1.0), np.full((10, classes, 4), -1.0)
    # Imported here, so that reading metrics does not load the C++ evaluator.
    from faster_coco_eval import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    numbered = [{"id": i, **annotation} for i, annotation in enumerate(annotations, start=1)]  # id 0 means unmatched
    dataset = {
        "images": [{"id": i} for i in range(1, images + 1)],
        "categories": [{"id": c, "name": str(c)} for c in range(1, classes + 1)],
        "annotations": numbered,
    }
    truth = COCO(dataset, print_function=_silent)
    evaluator = COCOeval_faster(
        truth, truth.loadRes(results), "bbox", ranges=AREA_RANGES_PX, print_function=_silent, separate_eval=True
    )
    # one limit in place of COCO's 1, 10 and 100: the figures of the others are not reported
    evaluator.params.maxDets = [limit]
    evaluator.evaluate()
    evaluator.accumulate()
    # the last axis is `maxDets`: one limit
    return np.asarray(evaluator.eval["precision"])[..., 0], np.asarray(evaluator.eval["recall"])[..., 0]


def _silent(*_: object) -> None:
    """Discards what faster-coco-eval prints."""
