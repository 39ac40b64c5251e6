"""The matcher: optimal, one query an object, every layer and image on its own."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from detection_batches import outputs_for, positive_map, random_batch, random_boxes, target
from reference_detection_loss import WEIGHTS, pair_cost, truth_of

from deixis.errors import OptionError
from deixis.losses import matcher
from deixis.losses.detection import build_criterion
from deixis.losses.matcher import HungarianMatcher, NonFiniteCostError
from deixis.losses.packing import pack_targets


def inputs(outputs, targets, layers=1):
    """What the matcher is called with, every layer from `aux_outputs` and the last."""
    packed = pack_targets(targets, torch.device("cpu"))
    mask = outputs["text_token_mask"][:, : packed.class_maps.shape[-1]]
    chosen = [*outputs["aux_outputs"], outputs][:layers]
    logits = torch.stack([layer["pred_logits"].detach()[..., : mask.shape[1]] for layer in chosen])
    logits = torch.where(mask[:, None], logits, 0.0)
    return logits, torch.stack([layer["pred_boxes"].detach() for layer in chosen]), mask, packed


def names(count):
    return [f"decoder layer {index}" for index in range(count)]


def test_no_boxes_in_any_image():
    call = inputs(*random_batch(0, counts=(0, 0)))
    assert HungarianMatcher()(*call, layer_names=names(1)).shape == (1, 2, 0)


def test_an_image_without_boxes_among_others():
    queries = HungarianMatcher()(*inputs(*random_batch(1, counts=(2, 0))), layer_names=names(1))
    assert (queries[0, 0] >= 0).all()
    assert (queries[0, 1] == -1).all()


def test_one_query_takes_the_cheapest_of_more_boxes():
    rows = torch.tensor([[0.0, 1.0, 0.0]])
    boxes = [[0.2, 0.2, 0.1, 0.1], [0.6, 0.6, 0.1, 0.4], [0.9, 0.9, 0.1, 0.1]]
    targets = [target(boxes, [0, 0, 0], rows)]
    outputs = outputs_for(np.random.default_rng(0), targets, queries=1, decoder_layers=1)
    with torch.no_grad():
        outputs["pred_boxes"].copy_(torch.tensor(boxes[1]))
    assert HungarianMatcher()(*inputs(outputs, targets), layer_names=names(1)).tolist() == [[[-1, 0, -1]]]


def test_repeated_boxes_get_different_queries():
    rows = torch.tensor([[0.0, 1.0, 0.0]])
    targets = [target([[0.5, 0.5, 0.1, 0.4]] * 3, [0, 0, 0], rows)]
    outputs = outputs_for(np.random.default_rng(0), targets, queries=5, decoder_layers=1)
    assert len(set(HungarianMatcher()(*inputs(outputs, targets), layer_names=names(1))[0, 0].tolist()) - {-1}) == 3


def test_width_is_not_height():
    rows = torch.tensor([[0.0, 1.0, 0.0]])
    targets = [target([[0.5, 0.5, 0.1, 0.4], [0.5, 0.5, 0.4, 0.1]], [0, 0], rows)]
    outputs = outputs_for(np.random.default_rng(0), targets, queries=2, decoder_layers=1, scale=0.0)
    with torch.no_grad():
        outputs["pred_boxes"].copy_(targets[0].boxes_cxcywh_norm.flip(0))
    assert HungarianMatcher()(*inputs(outputs, targets), layer_names=names(1)).tolist() == [[[1, 0]]]


@pytest.mark.parametrize("preset", WEIGHTS)
@pytest.mark.parametrize("seed", range(3))
def test_costs_equal_the_float64_reference(preset, seed):
    outputs, targets = random_batch(seed, counts=(4, 1))
    costs = build_criterion(preset).matcher.costs(*inputs(outputs, targets))
    for image, one in enumerate(targets):
        truth = truth_of(one)
        valid = outputs["text_token_mask"][image]
        for query in range(7):
            logits = outputs["aux_outputs"][0]["pred_logits"][image, query].detach().double()[valid].numpy()
            box = outputs["aux_outputs"][0]["pred_boxes"][image, query].detach().double().tolist()
            for row, (wanted, tokens) in enumerate(zip(truth.boxes, truth.tokens, strict=True)):
                expected = pair_cost(logits, box, wanted, tokens, WEIGHTS[preset])
                assert costs[0, image, row, query].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_the_best_of_all_permutations(seed):
    call = inputs(*random_batch(seed, counts=(3,), queries=5))
    hungarian = HungarianMatcher()
    cost = hungarian.costs(*call)[0, 0].double()
    chosen = hungarian(*call, layer_names=names(1))[0, 0]
    best = min(sum(cost[i, q].item() for i, q in enumerate(order)) for order in permutations(range(5), 3))
    assert cost[torch.arange(3), chosen].sum().item() == pytest.approx(best)


def test_batched_equals_one_by_one():
    outputs, targets = random_batch(3, counts=(3, 0, 5))
    logits, boxes, mask, packed = inputs(outputs, targets, layers=6)
    hungarian = HungarianMatcher()
    together = hungarian(logits, boxes, mask, packed, layer_names=names(6))
    for image, one in enumerate(targets):
        alone = pack_targets([one], torch.device("cpu"))
        width = alone.class_maps.shape[-1]
        for layer in range(6):
            only = (
                logits[layer : layer + 1, image : image + 1, :, :width],
                boxes[layer : layer + 1, image : image + 1],
            )
            single = hungarian(*only, mask[image : image + 1, :width], alone, layer_names=names(1))
            assert torch.equal(together[layer, image, : len(one.class_ids)], single[0, 0])


@pytest.mark.parametrize("setting", ["cost_class", "cost_l1", "cost_giou", "alpha", "gamma"])
def test_every_setting_changes_the_cost(setting):
    call = inputs(*random_batch(4))
    default, changed = HungarianMatcher(), HungarianMatcher(**{setting: 0.7})
    assert not torch.allclose(default.costs(*call), changed.costs(*call))


def test_bf16_is_costed_in_fp32():
    logits, boxes, mask, packed = inputs(*random_batch(5, dtype=torch.bfloat16))
    costs = HungarianMatcher().costs(logits, boxes, mask, packed)
    assert costs.dtype == torch.float32
    assert torch.equal(costs, HungarianMatcher().costs(logits.float(), boxes.float(), mask, packed))


def test_extreme_logits_have_bounded_costs():
    rows = positive_map(np.random.default_rng(0), 2)
    targets = [target(random_boxes(np.random.default_rng(0), 2), [0, 1], rows)]
    outputs = outputs_for(np.random.default_rng(1), targets, decoder_layers=1, scale=1e4)
    assert HungarianMatcher().costs(*inputs(outputs, targets)).abs().max() < 18.5 + 5 * 4 + 2


@pytest.mark.parametrize("preset", WEIGHTS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_any_token_that_is_not_finite_is_a_fault(preset, bad):
    logits, boxes, mask, packed = inputs(*random_batch(6, counts=(1,)))
    unused = int((packed.token_maps[0, 0] == 0).nonzero()[0])
    logits[0, 0, 3, unused] = bad
    with pytest.raises(NonFiniteCostError):
        build_criterion(preset).matcher(logits, boxes, mask, packed, layer_names=names(1))


def test_only_class_tokens_leaves_the_costs_as_they_are(monkeypatch):
    call = inputs(*random_batch(7, counts=(1, 0, 4)))
    selected = HungarianMatcher().costs(*call)
    monkeypatch.setattr(matcher, "_only_class_tokens", lambda *call: call)
    assert torch.allclose(selected, HungarianMatcher().costs(*call), atol=1e-6)


def test_nan_is_a_fault_and_only_in_an_image_with_boxes():
    logits, boxes, mask, packed = inputs(*random_batch(6, counts=(2, 0)))
    boxes[0, 1, 0, 0] = torch.nan
    HungarianMatcher()(logits, boxes, mask, packed, layer_names=names(1))  # nothing is matched there; the loss shows it
    logits[0, 0, 3, 0] = torch.nan
    with pytest.raises(NonFiniteCostError, match=r"labels.json: image 0 \(image 0 of the batch\).*decoder layer 0"):
        HungarianMatcher()(logits, boxes, mask, packed, layer_names=names(1))


@pytest.mark.parametrize("costs", [(-1.0, 5.0, 2.0), (0.0, 0.0, 0.0)])
def test_impossible_weights_are_refused(costs):
    with pytest.raises(OptionError, match="not be negative nor all zero"):
        HungarianMatcher(*costs)
