"""Several phrases an image in one pass, against a pass for each."""

from __future__ import annotations

import pytest
import torch
from small_segmenters import batch_of, tiny_segmenter
from test_sa2va_qwen import qwen_segmenter

from deixis.errors import ModelError
from deixis.models.sa2va import segment

ROWS = [
    [("Please segment the red circle in this image.", "Sure, [SEG].")],
    [("Please segment it.", "Sure, [SEG].")],
    [("Where is the blue square?", "No.")],
    [("Segment all.", "It is [SEG], [SEG].")],
]
IMAGE_OF_ROW = (0, 1, 1, 0)


@pytest.mark.parametrize("qwen", [False, True])
@torch.no_grad()
def test_one_pass_for_all_equals_a_pass_for_each(qwen: bool) -> None:
    bundle = qwen_segmenter() if qwen else tiny_segmenter()
    model, tiles = bundle.model, (1, 1) if qwen else (2, 1)
    rows = batch_of(bundle, ROWS, tuple(tiles[image] for image in IMAGE_OF_ROW))
    images = batch_of(bundle, ROWS[:2], tiles)
    vision, sam = model.vision_features(images.tiles), model.sam_features(images.sam_pixels)
    found = segment(model, rows.input_ids, rows.attention_mask, IMAGE_OF_ROW, tiles, vision, sam)
    each = torch.split(vision, tiles)
    chosen = list(IMAGE_OF_ROW)
    wanted = model(
        None,
        rows.tiles_per_image,
        None,
        rows.input_ids,
        rows.attention_mask,
        vision=torch.cat([each[image] for image in chosen]),
        sam=tuple(level[chosen] for level in sam),
    )
    assert found["object_image"].tolist() == [0, 1, 3, 3]
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found["pred_masks"][0], found["pred_masks"][1], atol=1e-2)


def test_rows_that_begin_differently_are_refused() -> None:
    bundle = tiny_segmenter()
    rows = batch_of(bundle, ROWS[:2], (1, 1))
    vision, sam = torch.zeros(1, 16, 128), bundle.model.sam_features(rows.sam_pixels[:1])
    ids = rows.input_ids.clone()
    ids[1, 0] += 1
    with pytest.raises(ModelError, match="begin alike"):
        segment(bundle.model, ids, rows.attention_mask, (0, 0), (1,), vision, sam)
