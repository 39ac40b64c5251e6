"""Collation: padding changes no pixels, targets or tokens. Faults F (padding), L (awkward), D (mixed prompts)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from bert_tokenizer import BertPromptTokenizer

from deixis.batch_records import Batch, Prompt
from deixis.data.detect.collate import collate
from deixis.data.detect.prompts import build_prompt
from deixis.data.detect.transforms import crop
from deixis.errors import DataError
from deixis.geometry.pixel_boxes import normalise_boxes
from deixis.records import Instances, Sample, Vocabulary

NAMES = ("hot dog", "cat", "bird")
VOCABULARY = Vocabulary(NAMES)


@pytest.fixture(scope="module")
def tokenizer() -> BertPromptTokenizer:
    return BertPromptTokenizer()


def sample(size_hw: tuple[int, int], instances: Instances | None = None, image_id: int = 0) -> Sample:
    pixels = np.random.default_rng(image_id).integers(1, 255, (*size_hw, 3), dtype=np.uint8)
    instances = Instances.none() if instances is None else instances
    return Sample(pixels, size_hw, instances, VOCABULARY, image_id, f"labels.json: image {image_id}", (99, 77))


def tall_box() -> Instances:
    """10 wide, 40 high, in the top left corner."""
    return Instances.build([[0, 0, 10, 40]], [1])


def test_an_image_without_objects(tokenizer: BertPromptTokenizer) -> None:
    batch = collate([sample((6, 8))], [build_prompt(NAMES, tokenizer)])
    (target,) = batch.targets
    assert target.boxes_cxcywh_norm.shape == (0, 4)
    assert target.boxes_cxcywh_norm.dtype == torch.float32
    assert target.class_ids.shape == (0,)
    assert target.class_ids.dtype == torch.int64
    assert target.positive_map.shape == (3, len(batch.input_ids[0]))


def test_boxes_are_centre_and_size_over_width_and_height(tokenizer: BertPromptTokenizer) -> None:
    (target,) = collate([sample((80, 40), tall_box())], [build_prompt(NAMES, tokenizer)]).targets
    np.testing.assert_allclose(target.boxes_cxcywh_norm, [[0.125, 0.25, 0.25, 0.5]])


def over_padded_canvas(samples: Sequence[Sample], prompts: Sequence[Prompt]) -> Batch:
    """Faulty: boxes divided by the size of the padded canvas."""
    batch = collate(samples, prompts)
    canvas_hw = (int(batch.pixels_u8.shape[2]), int(batch.pixels_u8.shape[3]))
    for target, one in zip(batch.targets, samples, strict=True):
        boxes = normalise_boxes(one.instances.boxes_xyxy_px, canvas_hw)
        target.boxes_cxcywh_norm.copy_(torch.from_numpy(boxes))
    return batch


def test_f_a_mixed_size_batch_equals_its_single_images(tokenizer: BertPromptTokenizer) -> None:
    samples = [sample((80, 40), tall_box(), 1), sample((50, 90), tall_box(), 2), sample((7, 5), image_id=3)]
    prompts = [build_prompt(names, tokenizer) for names in (NAMES, ("cat",), ("bird", "cat"))]

    def check(make: Callable[..., Batch]) -> None:
        batch = make(samples, prompts)
        assert batch.pixels_u8.shape == (3, 3, 80, 90)
        for row, (one, prompt) in enumerate(zip(samples, prompts, strict=True)):
            (alone,) = collate([one], [prompt]).targets
            target = batch.targets[row]
            height, width = one.size_hw
            assert target.size_hw == one.size_hw
            assert target.original_size_hw == (99, 77)
            assert torch.equal(target.boxes_cxcywh_norm, alone.boxes_cxcywh_norm)
            assert torch.equal(target.class_ids, alone.class_ids)
            np.testing.assert_array_equal(batch.pixels_u8[row, :, :height, :width].permute(1, 2, 0), one.image)
            assert int(batch.pixels_u8[row].sum()) == int(np.asarray(one.image).sum(dtype=np.int64))
            assert batch.pixel_mask[row, :height, :width].all()
            assert int(batch.pixel_mask[row].sum()) == height * width
            tokens = len(prompt.input_ids)
            assert batch.input_ids[row, :tokens].tolist() == list(prompt.input_ids)
            assert not batch.input_ids[row, tokens:].any()
            assert batch.attention_mask[row].tolist() == [i < tokens for i in range(batch.input_ids.shape[1])]
            assert torch.equal(target.positive_map[:, :tokens], alone.positive_map)
            assert not target.positive_map[:, tokens:].any()

    check(collate)
    with pytest.raises(AssertionError):
        check(over_padded_canvas)


@pytest.mark.parametrize(("divisor", "size"), [(1, (33, 65)), (32, (64, 96)), (7, (35, 70))])
def test_padding_to_a_multiple(divisor: int, size: tuple[int, int], tokenizer: BertPromptTokenizer) -> None:
    batch = collate([sample((33, 65))], [build_prompt(NAMES, tokenizer)], divisor)
    assert tuple(batch.pixels_u8.shape[2:]) == size
    assert tuple(batch.pixel_mask.shape[1:]) == size


def test_l_crowd_regions_are_no_targets(tokenizer: BertPromptTokenizer) -> None:
    instances = Instances.build([[0, 0, 4, 4], [1, 1, 5, 5], [2, 2, 6, 6]], [0, 1, 2], is_crowd=[True, False, True])
    (target,) = collate([sample((8, 8), instances)], [build_prompt(NAMES, tokenizer)]).targets
    assert target.class_ids.tolist() == [1]
    np.testing.assert_allclose(target.boxes_cxcywh_norm, [[3 / 8, 3 / 8, 0.5, 0.5]])


def test_l_tiny_and_repeated_boxes_stay_finite(tokenizer: BertPromptTokenizer) -> None:
    instances = Instances.build([[3, 3, 3.001, 3.001]] * 2 + [[0, 0, 0, 0]], [0, 0, 0])
    (target,) = collate([sample((8, 8), instances)], [build_prompt(NAMES, tokenizer)]).targets
    assert target.boxes_cxcywh_norm.shape == (3, 4)
    assert torch.isfinite(target.boxes_cxcywh_norm).all()


def test_d_each_object_points_at_its_own_name_in_its_own_prompt(tokenizer: BertPromptTokenizer) -> None:
    """Prompts of different names, orders and lengths in one batch; class ids are those of the vocabulary before."""
    every = Instances.build([[0, 0, 4, 4], [1, 0, 4, 4], [2, 0, 4, 4]], [0, 1, 2])
    only_bird = Instances.build([[0, 0, 4, 4]], [2])
    samples = [sample((8, 8), every), sample((8, 8), every), sample((8, 8), only_bird), sample((8, 8))]
    asked = [NAMES, ("bird", "zebra crossing", "cat", "hot dog"), ("bird",), ("zebra crossing",)]
    batch = collate(samples, [build_prompt(names, tokenizer) for names in asked])
    said = []
    for row, target in enumerate(batch.targets):
        tokens = [target.positive_map[class_id] > 0 for class_id in target.class_ids]
        said.append([tokenizer.words(batch.input_ids[row][marked].tolist()) for marked in tokens])
    assert said == [["hot dog", "cat", "bird"], ["hot dog", "cat", "bird"], ["bird"], []]
    vocabulary_ids = [list(one.instances.class_ids) for one in samples]
    assert [target.class_ids.tolist() for target in batch.targets[1:3]] != vocabulary_ids[1:3]  # the faulty form


def test_an_object_whose_class_is_not_asked_for(tokenizer: BertPromptTokenizer) -> None:
    with pytest.raises(DataError, match=r"labels.json: image 5: objects of classes \['cat'\]"):
        collate([sample((80, 40), tall_box(), 5)], [build_prompt(["bird"], tokenizer)])


def test_a_crowd_region_needs_no_name_in_the_prompt(tokenizer: BertPromptTokenizer) -> None:
    crowd = Instances.build([[0, 0, 4, 4]], [1], is_crowd=[True])
    assert len(collate([sample((8, 8), crowd)], [build_prompt(["bird"], tokenizer)]).targets[0].class_ids) == 0


def test_collation_leaves_samples_and_prompts_untouched(tokenizer: BertPromptTokenizer) -> None:
    one, prompt = sample((80, 40), tall_box()), build_prompt(NAMES, tokenizer)
    batch = collate([one], [prompt])
    batch.targets[0].positive_map.zero_()
    batch.pixels_u8.zero_()
    np.testing.assert_allclose(prompt.positive_map.sum(1), 1)
    assert np.asarray(one.image).any()


def test_what_a_crop_cuts_away_is_not_judged(tokenizer: BertPromptTokenizer) -> None:
    things = Vocabulary(("dog", "red cup"))
    instances = Instances.build([[0, 0, 30, 40], [60, 10, 90, 30]], [1, 0])
    whole = Sample(np.zeros((40, 100, 3), np.uint8), (40, 100), instances, things, source="a file")
    prompts = [build_prompt(names, tokenizer) for names in (things.names, ("cat", "red cup", "dog"))]
    cropped = crop(whole, (27, 0, 100, 40))  # a tenth of the cup is left
    batch = collate([cropped, cropped, crop(whole, (30, 0, 100, 40))], [*prompts, prompts[0]])
    assert [target.unjudged_class_ids for target in batch.targets] == [(1,), (1,), ()]
    assert [target.class_ids.tolist() for target in batch.targets] == [[0], [2], [0]]
