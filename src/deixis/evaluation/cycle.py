"""Metrics of the caption loop (region to caption to region): how well captions find their regions again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pycocotools import mask as coco_mask

from deixis.evaluation.captions import SIZES, is_exact
from deixis.evaluation.refer_iou import size_group

STEPS = (0.3, 0.5, 0.7, 0.8, 0.9)


def cycle_metrics(expressions: Iterable[Mapping[str, Any]], threshold: float) -> dict[str, Any]:
    """Means over regions, each in [0, 1].

    Args:
        expressions: entries with `masks`, `cycle_iou`, `text` if there is a caption, and for annotated regions
            `direct_iou` and the region's own sentences in `known`.
        threshold: captions with at least this cycle IoU are kept.

    Returns:
        cycle_IoU, direct_IoU (of the regions' own sentences), kept (a share), exact and exact_kept (the share of
        captions that equal one of the region's sentences), by_sizes, by_threshold. A metric without data is omitted.
    """
    rows = [(expression, expression["cycle_iou"]) for expression in expressions]
    known = [(is_exact(_text(row), row["known"]), iou) for row, iou in rows if row.get("known")]
    exact = [(float(right), iou) for right, iou in known]
    values: dict[str, Any] = {"regions": len(rows), "threshold": threshold}
    values |= _mean("cycle_IoU", [iou for _, iou in rows])
    values |= _mean("direct_IoU", [row["direct_iou"] for row, _ in rows if "direct_iou" in row])
    values |= _kept(rows, exact, threshold)
    values |= _mean("exact", [right for right, _ in exact])
    # a region is written as one mask, whatever it was joined from
    sizes = {
        size: [iou for row, iou in rows if size_group(int(coco_mask.area(row["masks"][0]))) == size] for size in SIZES
    }
    values["by_sizes"] = {
        size: {"regions": len(ious), **_mean("cycle_IoU", ious)} for size, ious in sizes.items() if ious
    }
    values["by_threshold"] = {str(step): _kept(rows, exact, step) for step in STEPS}
    return values


def _kept(
    rows: list[tuple[Mapping[str, Any], float]], exact: list[tuple[float, float]], threshold: float
) -> dict[str, float]:
    kept = [float(iou >= threshold and bool(_text(row))) for row, iou in rows]
    return _mean("kept", kept) | _mean("exact_kept", [right for right, iou in exact if iou >= threshold])


def _text(expression: Mapping[str, Any]) -> str:
    return expression["text"][0] if expression.get("text") else ""


def _mean(name: str, values: list[float]) -> dict[str, float]:
    return {name: sum(values) / len(values)} if values else {}
