"""The objects of one image: boxes where none can be, masks elsewhere, objects twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from pycocotools import mask as coco_mask

from deixis.data.checks.images import file_of
from deixis.data.findings import Findings
from deixis.data.formats.shared.box_values import MIN_SIDE_PX, are_shares
from deixis.geometry.pixel_boxes import clip_boxes
from deixis.records import Instances, Sample

TINY_PX = 2.0
SAME_IOU = 0.95  # IoU from which two boxes of one class are one object drawn twice
_ROUNDING_PX = 1.0  # formats count pixels from 0 or 1: a box may extend that far outside
_OFF_BOX_IOU = 0.5
_FAR = 0.25  # of a box that is cut, the share that remains in the image
_WHOLLY = "is wholly outside its image"


def examine_objects(sample: Sample, findings: Findings) -> Sample:
    """The sample with valid objects only; each fault is reported.

    Boxes are clipped to the image; boxes without any area left, and repetitions, are removed.
    """
    known = findings.object_places.get(sample.source, [])
    places = [
        f"{sample.source}: {known[i] if i < len(known) else f'object {i + 1}'} ({sample.vocabulary.names[c]})"
        for i, c in enumerate(sample.instances.class_ids.tolist())
    ]
    instances, keep = _clipped(sample, places, findings)
    # In this order: masks are compared with boxes that are cut, and what was removed repeats nothing.
    _masks(sample, instances, keep, places, findings)
    keep &= ~_repeated(sample, instances, keep, places, findings)
    cleaned = sample.evolve(instances=instances.select(keep))
    _emptiness(cleaned, findings)
    return cleaned


def examine_frame(samples: Iterable[Sample], file: str, findings: Findings) -> None:
    """Findings on a whole data set whose boxes are in another unit than pixels, or of images of another size."""
    samples = [sample for sample in samples if min(sample.size_hw) >= MIN_SIDE_PX]
    boxes = np.concatenate([sample.instances.boxes_xyxy_px for sample in samples] or [np.zeros((0, 4))])
    if len(boxes) and are_shares(boxes, np.array([sample.size_hw for sample in samples], np.float64)):
        findings.add("boxes_shares", file, "", f"none of the {len(boxes)} boxes has a corner beyond pixel 1")
    outside = sum(found.kind == "box_far_outside" or found.message.endswith(_WHOLLY) for found in findings.found)
    if outside > len(boxes) / 2:  # those wholly outside are no longer among the boxes
        findings.add("boxes_elsewhere", file, "", f"{outside} boxes have most of their area outside their images")


def _clipped(sample: Sample, places: list[str], findings: Findings) -> tuple[Instances, Bool[np.ndarray, " n"]]:
    """The instances cut to their image, and which of them keep some area."""
    raw = sample.instances.boxes_xyxy_px
    boxes = clip_boxes(raw, sample.size_hw)
    keep: np.ndarray = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    out = np.abs(raw - boxes).max(1, initial=0)
    sides = boxes[:, 2:] - boxes[:, :2]
    inside = sides.prod(1) / np.maximum((raw[:, 2:] - raw[:, :2]).prod(1), 1e-9)  # share of a box that is in the image
    file = file_of(sample)
    for i, place in enumerate(places):
        if not keep[i]:
            outside = (raw[i, 2:] > raw[i, :2]).all()
            # A box whose corners are in order and that still has no area left lay wholly outside.
            what = _WHOLLY if outside else "has no width or no height"
            findings.add("box_degenerate", file, place, f"box {_corners(raw[i])} {what}", "object removed")
        elif out[i] > _ROUNDING_PX:
            text = f"box {_corners(raw[i])} leaves the image by {out[i]:.0f} pixels"
            kind = "box_outside" if inside[i] > _FAR else "box_far_outside"
            findings.add(kind, file, place, text, "box cut to the image")
        elif sides[i].min() < TINY_PX:
            findings.add("box_tiny", file, place, f"box is {sides[i, 0]:.1f} x {sides[i, 1]:.1f} pixels")
    return replace(sample.instances, boxes_xyxy_px=boxes), keep


def _masks(
    sample: Sample, instances: Instances, keep: Bool[np.ndarray, " n"], places: list[str], findings: Findings
) -> None:
    """Findings on masks; `keep` loses the objects whose masks are empty."""
    if not instances.masks_rle:
        return
    bounds = np.asarray(coco_mask.toBbox(list(instances.masks_rle)), np.float64).reshape(-1, 4)
    boxes = _xywh(instances.boxes_xyxy_px)
    file = file_of(sample)
    for i in np.flatnonzero(keep).tolist():
        if bounds[i, 2:].min() <= 0:
            findings.add("mask_empty", file, places[i], "mask has no pixel", "object removed")
            keep[i] = False
            continue
        overlap = float(coco_mask.iou(bounds[i : i + 1], boxes[i : i + 1], [0])[0, 0])
        if overlap < _OFF_BOX_IOU:
            text = f"the mask's bounds and the box overlap by {overlap:.2f} only (IoU)"
            findings.add("mask_off_box", file, places[i], text)


def _repeated(
    sample: Sample, instances: Instances, keep: Bool[np.ndarray, " n"], places: list[str], findings: Findings
) -> Bool[np.ndarray, " n"]:
    """Which objects repeat an earlier one of their class; crowds are left alone."""
    repeated = np.zeros(len(instances), bool)
    rows = np.flatnonzero(keep & ~instances.is_crowd)
    if len(rows) < 2:
        return repeated
    boxes = _xywh(instances.boxes_xyxy_px[rows])
    overlaps = np.asarray(coco_mask.iou(boxes, boxes, [0] * len(rows)))
    file = file_of(sample)
    own_names = bool(sample.caption)  # a region with several phrases is repeated for each
    for later, earlier in np.argwhere(np.tril(overlaps, -1) >= SAME_IOU).tolist():  # below the diagonal: each pair once
        first, second = int(rows[earlier]), int(rows[later])
        # Of three equal boxes the first stays, and each later one is reported once.
        if repeated[first] or repeated[second]:
            continue
        where = places[first].removeprefix(f"{sample.source}: ")
        text = f"box is that of {where} (IoU {overlaps[later, earlier]:.2f})"
        if instances.class_ids[first] == instances.class_ids[second]:
            findings.add("box_repeated", file, places[second], text, "repetition removed")
            repeated[second] = True
        elif not own_names:
            findings.add("box_two_classes", file, places[second], text)
    return repeated


def _emptiness(sample: Sample, findings: Findings) -> None:
    if not len(sample.instances):
        findings.add("image_empty", file_of(sample), sample.source, "has no object")
    elif sample.instances.is_crowd.all():
        findings.add("image_crowd_only", file_of(sample), sample.source, "has crowd regions only")


def _xywh(boxes_xyxy_px: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    left_top, right_bottom = boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:]
    return np.concatenate([left_top, right_bottom - left_top], axis=1)


def _corners(box_xyxy_px: Float[np.ndarray, " 4"]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in box_xyxy_px)}]"
