"""Boxes and points through SAM 2 against transformers' own whole forward pass, on random weights."""

from __future__ import annotations

import pytest
import torch
from small_segmenters import tiny_segmenter
from torch import Tensor

from deixis.models.sa2va import masks_of_boxes, masks_of_clicks, masks_of_points

BOXES = torch.tensor([[4.0, 6.0, 30.0, 50.0], [0.0, 0.0, 64.0, 64.0], [20.5, 10.25, 21.0, 12.0]])
IMAGE_OF_OBJECT = torch.tensor([1, 0, 1])


@torch.no_grad()
def theirs(sam, pixels: Tensor, **prompts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = sam(pixel_values=pixels, multimask_output=True, **prompts)
    return found.pred_masks[0, 0], found.iou_scores[0, 0], found.object_score_logits[0, 0, 0]


@pytest.mark.parametrize("kind", ["boxes", "points"])
@torch.no_grad()
def test_masks_are_those_of_sam2(kind: str) -> None:
    model = tiny_segmenter().model
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    levels = model.sam_features(pixels)
    ask = masks_of_boxes if kind == "boxes" else masks_of_points
    prompts = BOXES if kind == "boxes" else BOXES[:, :2]
    found = ask(model.sam, prompts, levels, IMAGE_OF_OBJECT)
    for row, image in enumerate(IMAGE_OF_OBJECT.tolist()):
        given = prompts[row].view(1, 1, -1)
        named = {"input_boxes": given} if kind == "boxes" else {"input_points": given[:, :, None]}
        masks, ious, score = theirs(model.sam, pixels[image : image + 1], **named)
        torch.testing.assert_close(found.logits[row], masks, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.ious[row], ious, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.object_scores[row], score, rtol=1e-4, atol=1e-5)
    assert (found.logits[0] - found.logits[2]).abs().max() > 1e-2  # another prompt in the same image


@pytest.mark.parametrize("boxed", [False, True])
@torch.no_grad()
def test_clicks_are_those_of_sam2(boxed: bool) -> None:
    model = tiny_segmenter().model
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    points, inside = torch.tensor([[[10.0, 12.0], [40.0, 8.0]]]), torch.tensor([[1, 0]], dtype=torch.int32)
    box = BOXES[:1] if boxed else None
    levels = model.sam_features(pixels)
    found = masks_of_clicks(
        model.sam, points, inside, levels, image_of_object=torch.zeros(1, dtype=torch.long), boxes_xyxy=box
    )
    named = {"input_points": points[None], "input_labels": inside[None]}
    if box is not None:
        named["input_boxes"] = box[None]
    masks, ious, _ = theirs(model.sam, pixels, **named)
    torch.testing.assert_close(found.logits[0], masks, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.ious[0], ious, rtol=1e-4, atol=1e-5)
