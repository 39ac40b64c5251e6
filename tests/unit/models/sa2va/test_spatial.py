"""Outlines of regions, and the tokens that tell the language model of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from refer_batches import batches
from small_segmenters import TURNS, batch_of, tiny_segmenter
from small_trackers import tiny_tracker
from test_sa2va_captions import DOT, LARGE, SIZE_HW, SMALL, Asked
from tiny_refer_runs import TRAIN_SCENES, refer_arguments

from deixis.cli.main import run
from deixis.data.pixels.regions import OUTLINE_SIDE, OUTLINE_VALUES, region_outline, region_views
from deixis.errors import ModelError, OptionError
from deixis.inference.refer.captioner import Captioner
from deixis.models.sa2va import Sa2vaBundle, freeze, load_sa2va, part_of, save_sa2va
from deixis.models.sa2va.regions import spatial_tokens
from deixis.models.sa2va.weights.released import save_released
from deixis.options.groups import Lora
from deixis.options.refer_train import ReferParts, ReferTrainOptions
from deixis.recipes.refer.model import prepare_segmenter
from deixis.training.tasks.segmenter import one_question

IMAGE = np.random.default_rng(4).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)


def outlining_segmenter() -> Sa2vaBundle:
    bundle = tiny_segmenter()
    torch.manual_seed(5)
    bundle.model.add_spatial_token()
    bundle.model.eval()
    return bundle


def drawn(mask: np.ndarray) -> np.ndarray:
    return (region_outline(mask)[: OUTLINE_SIDE**2].reshape(OUTLINE_SIDE, OUTLINE_SIDE) + 1) / 2


def test_an_outline_is_the_share_of_each_cell_and_the_box() -> None:
    mask = np.zeros((200, 300), bool)
    mask[40:168, 100:164] = np.random.default_rng(0).random((128, 64)) < 0.4  # 128 high, 64 wide
    mask[40, 100] = mask[167, 163] = True
    found = drawn(mask)
    for row in range(OUTLINE_SIDE):
        for column in range(OUTLINE_SIDE):
            y, x = 40 + 4 * row, 100 - 32 + 4 * column
            inside = mask[y : y + 4, x : x + 4].mean() if 8 <= column < 24 else 0.0
            assert found[row, column] == pytest.approx(inside, abs=1e-6)
    box = (region_outline(mask)[-4:] + 1) / 2
    assert box == pytest.approx([132 / 300, 104 / 200, 64 / 300, 128 / 200], abs=1e-6)


def test_the_form_is_the_same_wherever_and_however_large() -> None:
    rows, columns = np.mgrid[:32, :32]
    form = (rows >= columns) & ((rows + columns) % 7 != 0) | (rows == 31)
    form[0, 0] = form[0, 31] = True
    masks = []
    for scale, top, left in ((1, 0, 0), (3, 11, 40), (4, 72, 2)):
        mask = np.zeros((200, 180), bool)
        mask[top : top + 32 * scale, left : left + 32 * scale] = form.repeat(scale, 0).repeat(scale, 1)
        masks.append(mask)
    first = drawn(masks[0])
    assert np.array_equal(first > 0.5, form)
    assert all(np.allclose(drawn(mask), first, atol=1e-6) for mask in masks)


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (199, 89, 1, 1), (0, 0, 200, 1), (7, 0, 1, 90), (0, 0, 200, 90)])
def test_the_smallest_and_longest_masks_have_outlines(box: tuple[int, int, int, int]) -> None:
    left, top, width, height = box
    mask = np.zeros((90, 200), bool)
    mask[top : top + height, left : left + width] = True
    found = region_outline(mask)
    assert found.shape == (OUTLINE_VALUES,)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1
    assert drawn(mask).sum() == pytest.approx(OUTLINE_SIDE**2 * width * height / max(width, height) ** 2, rel=1e-4)


def test_views_name_one_token_more_a_region_after_all_tiles() -> None:
    plain = region_views(IMAGE, [SMALL, LARGE, DOT], tiles=3, tile_px=48, side=8)
    views = region_views(IMAGE, [SMALL, LARGE, DOT], tiles=3, tile_px=48, side=8, outlined=True)
    first = (3 + len(views.focal)) * 64
    assert [cells[-1] for cells in views.cells] == [first, first + 1, first + 2]
    assert tuple(cells[:-1] for cells in views.cells) == plain.cells
    assert plain.outlines.shape == (0, OUTLINE_VALUES)
    assert all(np.array_equal(views.outlines[i], region_outline(m)) for i, m in enumerate((SMALL, LARGE, DOT)))


@torch.no_grad()
def test_each_region_gets_the_token_of_its_own_outline() -> None:
    bundle = outlining_segmenter()
    rows = [[LARGE, SMALL], [LARGE], [DOT], [SMALL, DOT, LARGE]]
    asked = Asked(bundle, rows)
    embeddings = asked.embedded(bundle)
    ends = bundle.tokenizer.convert_tokens_to_ids("</vp>")
    for row, masks in enumerate(rows):
        places = [i for i, token in enumerate(asked.input_ids[row].tolist()) if token == ends]
        for place, mask in zip(places, masks, strict=True):
            expected = bundle.model.spatial_token(torch.from_numpy(region_outline(mask)))
            torch.testing.assert_close(embeddings[row, place - 1], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_regions_nothing_changes() -> None:
    with_token, without = outlining_segmenter(), tiny_segmenter()
    inputs = batch_of(without, TURNS, (1, 1, 1))
    found, expected = with_token.model(*inputs), without.model(*inputs)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_another_form_is_another_description() -> None:
    """The same cells of the image, and other outlines within them."""
    bundle = outlining_segmenter()
    form = LARGE.copy()
    form[20:22, 40:60] = False
    plain = tiny_segmenter()
    for model, same in ((plain, True), (bundle, False)):
        first, second = Asked(model, [[LARGE]]), Asked(model, [[form]])
        assert [cells[:-1] if not same else cells for cells in first.regions.cells] == [
            cells[:-1] if not same else cells for cells in second.regions.cells
        ]
        assert (first.described(model) == second.described(model)) == same


def test_captions_do_not_depend_on_the_other_regions() -> None:
    captioner = Captioner(outlining_segmenter(), max_tiles=1, max_new_tokens=6)
    (together,) = captioner.caption([IMAGE], [[LARGE, SMALL, DOT]], batch_size=3)
    alone = [captioner.caption([IMAGE], [[mask]])[0][0] for mask in (LARGE, SMALL, DOT)]
    assert [c.text for c in together] == [c.text for c in alone]
    assert [c.score for c in together] == pytest.approx([c.score for c in alone], abs=1e-5)


def test_the_projection_trains_with_the_projector_and_has_a_gradient_without_regions() -> None:
    bundle = outlining_segmenter()
    assert part_of("spatial_token.0.weight") == "projector"
    freeze(bundle.model, ("projector",), lora=False)
    assert bundle.model.spatial_token is not None
    parameters = list(bundle.model.spatial_token.parameters())
    assert all(parameter.requires_grad for parameter in parameters)
    bundle.model(*batch_of(bundle, TURNS, (1, 1, 1)))["label_logits"].mean().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in parameters)


def test_faults_are_told() -> None:
    bundle = outlining_segmenter()
    assert bundle.model.spatial_token is not None
    with pytest.raises(ModelError, match="1028 values"):
        spatial_tokens(bundle.model.spatial_token, [torch.zeros(2, 7)])
    asked = Asked(bundle, [[LARGE]])
    asked.regions = asked.regions._replace(outlines=(torch.zeros(0, OUTLINE_VALUES),))
    with pytest.raises(ModelError, match="a region has token"):
        asked.embedded(bundle)
    plain = tiny_segmenter()
    asked = Asked(bundle, [[LARGE]])
    with pytest.raises(ModelError, match="1 outlines for a model that made 0"):
        asked.embedded(plain)


def test_folders_keep_it_and_released_layouts_cannot(tmp_path: Path) -> None:
    bundle = tiny_tracker(seed=1)
    bundle.model.add_spatial_token()
    save_sa2va(bundle, tmp_path / "folder")
    again = load_sa2va(tmp_path / "folder").model
    assert again.spatial_token is not None
    assert bundle.model.spatial_token is not None
    assert torch.equal(again.spatial_token[2].weight, bundle.model.spatial_token[2].weight)
    with pytest.raises(ModelError, match="spatial tokens"):
        save_released(bundle, tmp_path / "released")
    (tmp_path / "folder/spatial_token.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match=r"spatial_token\.safetensors: cannot be read"):
        load_sa2va(tmp_path / "folder")


@pytest.mark.slow
def test_a_run_trains_it(tmp_path: Path) -> None:
    bundle = tiny_segmenter()
    torch.manual_seed(3)
    bundle.model.add_spatial_token()
    save_sa2va(bundle, tmp_path / "model")
    more = ("--caption-share", "0.6", "--no-report", "--learning-rate", "1e-3", "--seed", "3")
    assert run(refer_arguments(tmp_path / "model", tmp_path, *more)) == 0
    teacher = tmp_path / "segmenter/teachers/sa2va"
    assert json.loads((teacher / "config.json").read_text())["spatial_token"]
    start, trained = load_sa2va(tmp_path / "model").model.spatial_token, load_sa2va(teacher).model.spatial_token
    assert start is not None
    assert trained is not None
    gap = (trained[0].weight - start[0].weight).abs()
    assert 0 < float(gap.max()) < 0.1  # the same start, and then steps


def test_one_image_of_a_batch_keeps_its_outlines() -> None:
    batch = next(batch for batch in batches(0.9) if batch.regions is not None)
    assert batch.regions is not None
    rows = tuple(
        torch.full((len(cells) and 1, OUTLINE_VALUES), float(i)) for i, cells in enumerate(batch.regions.cells)
    )
    given = replace(batch, regions=batch.regions._replace(outlines=rows))
    for index in range(len(batch)):
        regions = one_question(given, index).regions
        assert regions is not None
        assert len(regions.outlines) == 1
        assert torch.equal(regions.outlines[0], rows[index])
        moved = given.to("cpu").regions
        assert moved is not None
        assert torch.equal(moved.outlines[index], rows[index])


@pytest.mark.parametrize("way", ["points", "outlines"])
def test_a_model_that_has_it_is_not_trained_to_behave_as_released(tmp_path: Path, way: str) -> None:
    bundle = tiny_segmenter()
    if way == "points":
        bundle.model.sam.config.points_first = True
    else:
        bundle.model.add_spatial_token()
    save_sa2va(bundle, tmp_path / "model")
    options = ReferTrainOptions(data=(TRAIN_SCENES,), behaviour="sa2va", model=str(tmp_path / "model"))
    with pytest.raises(OptionError, match="point first" if way == "points" else "spatial tokens"):
        prepare_segmenter(options.group(ReferParts), options.group(Lora), "sa2va", seed=0)
