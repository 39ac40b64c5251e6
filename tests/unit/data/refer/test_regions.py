"""Masks as cells of token grids, focal views, and batches that ask for words."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from refer_batches import SEG_ID, batches, encode

from deixis.data.pixels.regions import FOCAL_CELLS, focal_box_px, region_cells, region_views
from deixis.data.refer.collate import Question, Views, collate_questions
from deixis.data.refer.conversation import EVERY_REGION, caption_turns
from deixis.data.refer.loading import QuestionDataset
from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.errors import DataError, OptionError
from deixis.records import Rle
from deixis.refer_records import Expression, ReferSample

VIEWS = Views(tile_px=32, max_tiles=4, sam_px=64, mask_px=16, tile_side=8)


def one_pixel(size_hw: tuple[int, int], y: int, x: int) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    mask[y, x] = True
    return mask


def rle(mask: np.ndarray) -> Rle:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 50), (37, 8), (9, 300)])
@pytest.mark.parametrize("nearest", [False, True])
def test_every_pixel_by_itself_is_a_region(size_hw: tuple[int, int], nearest: bool) -> None:
    for y in range(size_hw[0]):
        for x in range(0, size_hw[1], 7):
            cells = region_cells(one_pixel(size_hw, y, x), 8, nearest)
            assert cells.any()
            rows, columns = np.nonzero(cells)  # and its cells are where it is
            assert (rows * size_hw[0] / 8 < y + 1).all()
            assert ((rows + 1) * size_hw[0] / 8 > y).all()
            assert (columns * size_hw[1] / 8 < x + 1).all()
            assert ((columns + 1) * size_hw[1] / 8 > x).all()


def test_nearest_is_torchs_nearest() -> None:
    import torch
    import torch.nn.functional as F

    mask = np.random.default_rng(0).random((77, 130)) < 0.5
    wanted = F.interpolate(torch.from_numpy(mask)[None, None].float(), size=(16, 16), mode="nearest")[0, 0].bool()
    assert np.array_equal(region_cells(mask, 16, nearest=True), wanted.numpy())


def test_an_empty_mask_is_refused() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(DataError, match="without a pixel"):
        region_views(image, [np.zeros((20, 30), bool)], 1, 32, 8)


def test_a_focal_view_is_three_boxes_wide_and_stays_inside() -> None:
    mask = np.zeros((400, 600), bool)
    mask[200:230, 300:340] = True
    assert focal_box_px(mask) == (260, 170, 380, 260)
    assert focal_box_px(one_pixel((400, 600), 100, 100)) == (76, 76, 124, 124)
    assert focal_box_px(one_pixel((400, 600), 0, 599)) == (576, 0, 600, 24)
    assert focal_box_px(np.ones((10, 12), bool)) == (0, 0, 12, 10)


def test_small_regions_are_seen_closely_and_large_ones_are_not() -> None:
    image = np.zeros((160, 160, 3), np.uint8)
    small, large = np.zeros((160, 160), bool), np.zeros((160, 160), bool)
    small[75:85, 75:85] = True
    image[75:85, 75:85] = 200
    large[:160, :80] = True
    views = region_views(image, [small, large, small], tiles=3, tile_px=48, side=8)
    assert len(views.focal) == 2
    assert len(views.cells[1]) == 32 >= FOCAL_CELLS
    assert min(views.cells[1]) >= 2 * 64  # in the last of three tiles
    whole = [cell for cell in views.cells[0] if cell < 3 * 64]
    close = [cell - 3 * 64 for cell in views.cells[0] if cell >= 3 * 64]
    assert [cell - 2 * 64 for cell in whole] == [27, 28, 35, 36]  # the four cells that share its 10 pixels
    assert close == [27, 28, 35, 36]  # a fifth of a view of 48 pixels
    assert [cell - 4 * 64 for cell in views.cells[2] if cell >= 4 * 64] == close
    assert (views.focal[0][:, 20:28, 20:28] > 150).all()
    assert views.focal[0].mean() < 30
    released = region_views(image, [small], tiles=3, tile_px=48, side=8, released=True)
    assert (len(released.focal), released.cells) == (0, ((2 * 64 + 36,),))


def test_captions_are_of_what_has_words_and_pixels() -> None:
    dot = rle(one_pixel((8, 8), 2, 2))
    empty = rle(np.zeros((8, 8), bool))
    said = [
        Expression(("a", "b"), (dot,)),
        Expression((), (dot,)),  # no words yet
        Expression(("absent",), ()),
        Expression(("empty",), (empty,)),
        Expression(("c ",), (empty, dot)),
    ]
    seen = set()
    for seed in range(40):
        turns, regions = caption_turns(said, 3, np.random.default_rng(seed))
        assert set(regions) == {0, 4}
        answers = [turn.answer for turn in turns]
        if turns[0].question == EVERY_REGION:
            first = "c" if regions[0] == 4 else answers[0].split("region1: ")[1][0]
            assert answers[0].startswith(f"region1: {first}, region2: ")
        else:
            assert ["region1" in turns[0].question, "region2" in turns[1].question] == [True, True]
            assert answers[regions.index(4)] == "c"
        seen.add((len(turns), *answers))
    assert len(seen) > 4  # orders and sentences are drawn, together or one by one
    assert caption_turns(said[1:4], 3, np.random.default_rng(0)) == ([], ())


def test_both_directions_share_batches() -> None:
    mixed = batches(0.5)
    rows = [(batch, row) for batch in mixed for row in range(len(batch))]
    described = [batch.regions is not None and bool(batch.regions.cells[row]) for batch, row in rows]
    assert 0 < sum(described) < len(rows)
    for (batch, row), caption in zip(rows, described, strict=True):
        ids, target = batch.input_ids[row], batch.targets[row]
        assert int((ids == SEG_ID).sum()) == len(target.masks) == len(target.texts)
        assert (len(target.masks) == 0) == caption
        focal = batch.regions.focal_per_image[row] if batch.regions else 0
        cells = batch.regions.cells[row] if batch.regions else ()
        assert int((ids == 9).sum()) == 4 * (batch.tiles_per_image[row] - focal) + len(cells)
        assert (batch.labels[row] >= 0).any()
    assert all(batch.regions is None for batch in batches(0))
    assert all(len(target.masks) == 0 for batch in batches(1) for target in batch.targets)


def test_caption_batches_do_not_depend_on_the_number_of_workers() -> None:
    for one, other in zip(batches(0.5), batches(0.5, workers=2), strict=True):
        assert one.regions == other.regions
        assert one.input_ids.equal(other.input_ids)
        assert one.tiles_u8.equal(other.tiles_u8)


def test_a_region_that_cannot_be_is_refused_with_its_source() -> None:
    expression = Expression(("a",), (rle(np.zeros((8, 8), bool)),))
    sample = ReferSample(np.zeros((8, 8, 3), np.uint8), (8, 8), (expression,), source="x.json: 3")
    turns, _ = caption_turns([Expression(("a",), (rle(one_pixel((8, 8), 0, 0)),))], 1, np.random.default_rng(0))
    with pytest.raises(DataError, match=r"x.json: 3: a region without a pixel"):
        collate_questions([Question(sample, tuple(turns), (), (0,))], encode, VIEWS, 0, 99)
    with pytest.raises(OptionError, match="caption_share"):
        QuestionDataset(refer_scenes("refer_train", 2, 0), 1, 0, caption_share=1.5)
