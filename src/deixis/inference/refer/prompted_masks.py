"""Masks of one image from boxes, or from a grid of points where there are no names to look for.

A box is segmented in two ways: by SAM 2's box prompt (three masks), and by its name as a phrase (each connected part of
the mask is a candidate). The candidate whose tight box fits the given box best is kept. So a model that knows only one
of the two prompts, such as one trained on phrases alone, still gives masks, and the fit measures their quality.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pycocotools import mask as coco_mask
from torch import Tensor

from deixis.data.pixels.tiles import squashed
from deixis.geometry.boxes import box_iou
from deixis.geometry.rle import bitmap_rle
from deixis.inference.eval_mode import evaluating
from deixis.inference.refer.pictures import enlarged, middle_px
from deixis.inference.refer.segmenter import Segmenter
from deixis.models.sa2va import SamLevels, masks_of_boxes, masks_of_clicks, masks_of_points
from deixis.models.sa2va.sam import Masks
from deixis.models.sa2va.sam_protocol import Sam
from deixis.records import Rle
from deixis.refer_records import Expression, ReferList, ReferSample

PROMPTS_PER_BATCH = 32
_Ask = Callable[[Sam, Tensor, SamLevels, Tensor], Masks]


@dataclass(frozen=True)
class PromptedMask:
    """A mask and the prompt that gave it.

    Attributes:
        mask_rle: in the size of the image; empty where nothing was found.
        prompt: `box`, `phrase`, `point` or `clicks`.
        predicted_iou: the IoU that the model predicts for the mask, in [0, 1].
        fit: IoU of the mask's tight box with the given box, in [0, 1]; 1 without a box.
    """

    mask_rle: Rle
    prompt: str
    predicted_iou: float
    fit: float = 1.0


class PromptedMasks:
    """A segmenter prompted by boxes and points; shares the segmenter's model, device and sizes."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.bundle, self.device = segmenter.bundle, segmenter.device
        self.via_px = middle_px(segmenter.bundle)

    def in_boxes(
        self, pixels: UInt8[np.ndarray, "h w 3"], boxes_xyxy_px: Float[np.ndarray, "n 4"], names: Sequence[str]
    ) -> list[PromptedMask]:
        """The mask of each box.

        Args:
            names: of the object in each box, as a phrase.
        """
        if not len(boxes_xyxy_px):
            return []
        size_hw = (pixels.shape[0], pixels.shape[1])
        boxes = torch.from_numpy(np.ascontiguousarray(boxes_xyxy_px, dtype=np.float32))
        # (x, y, x, y): pixels of the image per pixel of a mask
        to_image = torch.tensor([size_hw[1], size_hw[0]] * 2) / self.bundle.mask_px
        parts = self._parts_of_phrases(pixels, sorted(set(names)))
        found = []
        for box, name, (logits, ious) in zip(boxes, names, self._ask(pixels, boxes, masks_of_boxes), strict=True):
            best = _best_fitting(logits > 0, ious, box / to_image)  # of the three masks
            masks = [(enlarged(logits[best], size_hw, self.via_px), "box", float(ious[best]))]
            masks += [(part, "phrase", iou) for part, iou in parts[name]]
            fits = [_fit(_tight_box(torch.from_numpy(mask)), box) for mask, _, _ in masks]
            chosen = fits.index(max(fits))
            mask, prompt, iou = masks[chosen]
            found.append(PromptedMask(bitmap_rle(mask), prompt, iou, fits[chosen]))
        return found

    def at_clicks(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        points_xy_px: Float[np.ndarray, "points 2"],
        inside: Bool[np.ndarray, " points"],
        box_xyxy_px: Float[np.ndarray, " 4"] | None = None,
    ) -> PromptedMask:
        """The mask of one object from points on it and beside it.

        Of SAM 2's three masks the one that agrees with most points is kept, of equals the one of highest predicted IoU.

        Args:
            inside: whether each point is on the object.
            box_xyxy_px: around the object, where one is known.
        """
        size_hw = (pixels.shape[0], pixels.shape[1])
        points = torch.from_numpy(np.asarray(points_xy_px, np.float32))
        # [1, points]; SAM 2's labels: 1 on the object, 0 beside it
        labels = torch.from_numpy(np.asarray(inside, np.int32))[None].to(self.device)
        given = points.reshape(1, -1)  # (x, y, x, y, ...): one prompt
        if box_xyxy_px is not None:
            given = torch.cat([given, torch.from_numpy(np.asarray(box_xyxy_px, np.float32))[None]], 1)

        def ask(sam: Sam, prompts: Tensor, levels: SamLevels, images: Tensor) -> Masks:
            clicks = prompts[:, : 2 * len(points)].reshape(1, -1, 2)
            box = None if box_xyxy_px is None else prompts[:, -4:]
            return masks_of_clicks(sam, clicks, labels, levels, image_of_object=images, boxes_xyxy=box)

        ((logits, ious),) = self._ask(pixels, given, ask)
        masks = [enlarged(each, size_hw, self.via_px) for each in logits]
        # the pixel that each point is in
        columns, rows = np.minimum(np.asarray(points_xy_px, np.int64), [size_hw[1] - 1, size_hw[0] - 1]).T
        right = [int((mask[rows, columns] == inside).sum()) for mask in masks]
        best = max(range(len(masks)), key=lambda place: (right[place], float(ious[place])))
        return PromptedMask(bitmap_rle(masks[best]), "clicks", float(ious[best]))

    def on_grid(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        points_per_side: int = 16,
        *,
        min_iou: float = 0.8,
        max_overlap: float = 0.7,
        max_masks: int = 50,
    ) -> list[PromptedMask]:
        """Masks of whatever is under a grid of points, by predicted IoU, best first.

        Each point gives three masks; those of high predicted IoU that do not duplicate a better one are kept.

        Args:
            min_iou: masks of a lower predicted IoU are dropped.
            max_overlap: two masks with this IoU or more are duplicates.
            max_masks: the maximum number of masks.
        """
        size_hw = (pixels.shape[0], pixels.shape[1])
        places = (torch.arange(points_per_side) + 0.5) / points_per_side  # centres of equal cells, in [0, 1]
        grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1).reshape(-1, 2)  # [points, (x, y)]
        asked = self._ask(pixels, grid * torch.tensor([size_hw[1], size_hw[0]]), masks_of_points)
        logits = torch.cat([each for each, _ in asked])  # [3 per point, side, side]
        ious = torch.cat([each for _, each in asked])
        kept = (ious >= min_iou) & (logits > 0).flatten(1).any(1)
        logits, ious = logits[kept], ious[kept]
        order = distinct_masks(logits > 0, ious, max_overlap)[:max_masks]
        found = [(enlarged(logits[place], size_hw, self.via_px), float(ious[place])) for place in order]
        return [PromptedMask(bitmap_rle(mask), "point", iou) for mask, iou in found if mask.any()]

    @torch.no_grad()
    def _ask(
        self, pixels: np.ndarray, prompts_px: Float[Tensor, "objects columns"], ask: _Ask
    ) -> list[tuple[Float[Tensor, "3 side side"], Float[Tensor, " 3"]]]:
        """Logits and predicted IoUs of each prompt (x, y, ... in pixels of the image)."""
        model, side = self.bundle.model, self.bundle.sam_px
        seen = torch.from_numpy(squashed(pixels, (side, side)).transpose(2, 0, 1).copy())[None].to(self.device)
        height, width = pixels.shape[:2]
        # each axis by its own factor: the image is squashed to a square
        scale = torch.tensor([side / width, side / height]).repeat(prompts_px.shape[1] // 2)
        prompts = (prompts_px * scale).to(self.device)
        answers = []
        with evaluating(model):
            levels = model.sam_features(self.bundle.normalise_sam(seen))
            for part in torch.split(prompts, PROMPTS_PER_BATCH):
                first = torch.zeros(len(part), dtype=torch.long, device=self.device)  # the only image
                masks = ask(model.sam, part, levels, first)  # [part, 3, side, side]
                answers += list(zip(masks.logits.float().cpu(), masks.ious.float().cpu(), strict=True))
        return answers

    def _parts_of_phrases(
        self, pixels: np.ndarray, names: Sequence[str]
    ) -> dict[str, list[tuple[Bool[np.ndarray, "h w"], float]]]:
        """For each name the connected parts of its mask, each with the predicted IoU of the whole mask."""
        asked = tuple(Expression((name,), ()) for name in names)
        sample = ReferSample(pixels, (pixels.shape[0], pixels.shape[1]), asked)
        ((_, answers),) = self.segmenter.run(ReferList((sample,)))
        parts = {}
        for answer in answers:
            bitmap = np.ascontiguousarray(coco_mask.decode(answer.mask_rle))
            count, labels = cv2.connectedComponents(bitmap, connectivity=8)
            # label 0 is the background
            parts[answer.text] = [(labels == label, answer.score) for label in range(1, count)]
        return parts


def distinct_masks(masks: Bool[Tensor, "masks h w"], scores: Float[Tensor, " masks"], max_overlap: float) -> list[int]:
    """Non-maximum suppression by mask IoU: indices of the masks to keep, best first."""
    flat = masks.flatten(1).float()  # [masks, pixels]
    areas = flat.sum(1)
    kept: list[int] = []
    for place in scores.argsort(descending=True, stable=True).tolist():
        common = flat[kept] @ flat[place]  # [kept]: pixels in both
        # IoU as a product instead of a quotient: empty masks have no union to divide by.
        if not (common >= max_overlap * (areas[kept] + areas[place] - common)).any():
            kept.append(place)
    return kept


def _best_fitting(
    masks: Bool[Tensor, "masks side side"], ious: Float[Tensor, " masks"], box_xyxy: Float[Tensor, " 4"]
) -> int:
    """The mask whose tight box fits best; ties go to the higher predicted IoU."""
    fits = [_fit(_tight_box(mask), box_xyxy) for mask in masks]
    return max(range(len(fits)), key=lambda place: (fits[place], float(ious[place])))


def _tight_box(mask: Bool[Tensor, "h w"]) -> Float[Tensor, " 4"]:
    """The tight box (x, y, x, y) around a mask's pixels; zeros for an empty mask."""
    if not mask.any():
        return torch.zeros(4)
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    corners = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    return torch.tensor(corners, dtype=torch.float32)


def _fit(one_xyxy: Float[Tensor, " 4"], other_xyxy: Float[Tensor, " 4"]) -> float:
    return float(box_iou(one_xyxy[None], other_xyxy[None])[0, 0])
