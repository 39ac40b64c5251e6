"""Denoising queries: what they are made of, that nothing leaks from them, and their loss against plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from detection_batches import outputs_for, positive_map, random_batch, random_targets, target
from reference_detection_loss import WEIGHTS, _focal, giou, truth_of
from small_detectors import IDS, all_outputs, images, prompts, small_detector

from deixis.data.detect.denoising import DenoisingQueries, make_denoising_queries
from deixis.errors import OptionError
from deixis.geometry.boxes import cxcywh_to_xyxy
from deixis.losses.detection import build_criterion
from deixis.models.grounding_dino.decoder import add_denoising, denoising_mask

WIDTH = len(IDS[0])


def rows(*spans):
    """A positive map over the longer prompt of `IDS`."""
    found = torch.zeros(len(spans), WIDTH)
    for row, (start, end) in zip(found, spans, strict=True):
        row[start:end] = 1 / (end - start)
    return found


def two_targets(counts=(3, 1)):
    """Objects of "red square", "blue circle dog" and "cat" in the first image, of "raccoon" in the second."""
    rng = np.random.default_rng(4)
    first, second = rows((1, 3), (4, 7), (8, 9)), rows((1, 2))
    boxes = [torch.tensor(rng.uniform(0.2, 0.6, (count, 4)), dtype=torch.float32) for count in counts]
    return [
        target(boxes[0], rng.integers(0, 3, counts[0]), first, 0),
        target(boxes[1], [0] * counts[1], second, 1),
    ]


def made(targets, count=6, seed=0, **noise) -> DenoisingQueries:
    torch.manual_seed(seed)
    found = make_denoising_queries(targets, count, **noise)
    assert found is not None
    return found


def run(model, denoising=None):
    with torch.no_grad():
        return model(**images((64, 96), (48, 64)), **prompts(*IDS), denoising=denoising)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in ("pred_logits", "pred_boxes"))


@pytest.fixture(scope="module")
def model():
    return small_detector()


def test_no_object_makes_no_queries():
    assert make_denoising_queries(two_targets((0, 0)), 10) is None


def test_one_box_fills_as_many_groups_as_were_asked_for():
    queries = made(two_targets((0, 1)), 5)
    assert (queries.groups, queries.real.shape) == (5, (2, 10))
    assert queries.real.sum(1).tolist() == [0, 10]
    assert queries.positive[1].tolist() == [True, False] * 5
    assert queries.label_maps[0].abs().sum() == 0


def test_different_counts_are_padded_group_by_group():
    queries = made(two_targets((3, 1)), 7)
    assert queries.groups == 2, "7 copies hold two whole groups of 3"
    assert queries.objects[0].tolist() == [0, 1, 2] * 4
    assert queries.positive[0].tolist() == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3
    assert queries.real[1].tolist() == [True, False, False] * 4
    assert queries.objects[1].tolist() == [0] * 12


def test_more_objects_than_queries_make_one_group():
    assert made(two_targets((9, 1)), 4).groups == 1


def test_copies_stay_within_half_a_box_and_decoys_beyond():
    box = target([[0.5, 0.5, 0.1, 0.3]], [0], rows((1, 2)))  # an oblong: width and height told apart
    queries = made([box], 500)
    moved = cxcywh_to_xyxy(queries.boxes_cxcywh_norm[0]) - cxcywh_to_xyxy(box.boxes_cxcywh_norm)
    share = moved.abs() / torch.tensor([0.05, 0.15, 0.05, 0.15])
    copies, decoys = share[queries.positive[0]], share[~queries.positive[0]]
    assert copies.amax(0).min() > 0.95
    assert copies.max() < 1.0001
    upright = queries.boxes_cxcywh_norm[0, ~queries.positive[0], 2:].min(1).values > 0
    assert decoys[upright].min() > 0.9999
    assert decoys[upright].max() < 2.0001
    assert moved[queries.positive[0]].mean(0).abs().max() < 0.02, "to all sides alike"


def test_boxes_stay_inside_the_image_with_sides_not_below_zero():
    boxes = torch.rand(40, 4, generator=torch.Generator().manual_seed(1))
    queries = made([target(boxes, [0] * 40, rows((1, 2)))], 400)
    corners = cxcywh_to_xyxy(queries.boxes_cxcywh_norm)
    assert corners.min() > -1e-6
    assert corners.max() < 1 + 1e-6
    assert queries.boxes_cxcywh_norm[..., 2:].min() >= 0


def test_without_noise_copies_are_the_objects_themselves():
    targets = two_targets()
    queries = made(targets, 3, label_noise=0.0, box_noise=0.0)
    torch.testing.assert_close(queries.boxes_cxcywh_norm[0, :3], targets[0].boxes_cxcywh_norm.clamp(0, 1))
    assert torch.equal(queries.label_maps[0, :3], targets[0].positive_map[targets[0].class_ids])


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_label_noise_swaps_to_other_classes_of_the_prompt(share):
    targets = two_targets((1, 1))
    queries = made(targets, 2000, label_noise=share)
    true = (queries.label_maps[0] == targets[0].positive_map[targets[0].class_ids]).all(1)
    assert abs((~true).float().mean() - share) < 0.03
    others = {tuple(row.nonzero()[:, 0].tolist()) for row in queries.label_maps[0][~true]}
    assert len(others) == 2, "both others come up"
    assert torch.equal(queries.label_maps[1].unique(dim=0), targets[1].positive_map), "a lone class has no other"


@pytest.mark.parametrize(("count", "noise"), [(0, {}), (1, {"label_noise": 1.1}), (1, {"box_noise": -0.1})])
def test_impossible_options_are_refused(count, noise):
    with pytest.raises(OptionError, match="denoising needs"):
        make_denoising_queries(two_targets(), count, **noise)


def told_of_a_cat(model, tell):
    """What a query of the same cat is told in two prompts that differ in the order of their classes."""
    cat_last = [101, 2417, 2675, 1012, 2630, 4418, 3608, 1012, 4937, 1012, 102]
    cat_first = [101, 4937, 1012, 2417, 2675, 1012, 2630, 4418, 3608, 1012, 102]
    told = []
    for ids, spans, cat in ((cat_last, [(1, 3), (4, 7), (8, 9)], 2), (cat_first, [(1, 2), (3, 5), (6, 9)], 0)):
        one = target([[0.5, 0.5, 0.2, 0.3]], [cat], rows(*spans))
        told.append(tell(made([one], 1, label_noise=0.0), model.model.encode_text(**_text(ids)).tokens, one))
    return told


def by_name(queries, text, one):
    matching = torch.zeros(1, 3, text.shape[-1])
    return add_denoising(queries, matching, torch.zeros(1, 3, 4), text=text)[0][:, :2]


def test_what_a_query_is_told_depends_on_the_class_and_not_on_its_place_in_the_prompt(model):
    first, second = told_of_a_cat(model, by_name)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    assert first.abs().max() > 0.1
    table = torch.nn.Embedding(3, first.shape[-1])  # the faulty form: a row a place in the prompt
    first, second = told_of_a_cat(model, lambda queries, text, one: table(one.class_ids))
    assert (first - second).abs().max() > 0.1


def _text(ids):
    tokens = torch.tensor([ids])
    return {"input_ids": tokens, "token_mask": torch.ones_like(tokens, dtype=torch.bool)}


@pytest.mark.parametrize("training", [False, True])
def test_nothing_leaks_to_the_matching_queries(training):
    model = small_detector(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    model.model.decoder.train(training)
    queries = made(two_targets())
    other = replace(
        queries,
        boxes_cxcywh_norm=torch.rand_like(queries.boxes_cxcywh_norm),
        label_maps=torch.rand_like(queries.label_maps),
    )
    outputs, changed = run(model, queries), run(model, other)
    assert not same(outputs["denoising_outputs"][-1], changed["denoising_outputs"][-1])
    assert all(same(a, b) for a, b in zip(all_outputs(outputs), all_outputs(changed), strict=True))


@pytest.mark.parametrize("faulty", ["all to all", "matching to denoising"])
def test_a_leak_is_noticed(model, monkeypatch, faulty):
    def mask(real, groups, matching):
        right = denoising_mask(real, groups, matching)
        return right | (faulty == "all to all") | (torch.arange(right.shape[-1]) >= real.shape[1])[:, None]

    monkeypatch.setattr("deixis.models.grounding_dino.decoder.denoising_mask", mask)
    queries = made(two_targets())
    other = replace(queries, boxes_cxcywh_norm=torch.rand_like(queries.boxes_cxcywh_norm))
    assert not same(run(model, queries), run(model, other))


def test_groups_do_not_see_each_other_nor_padding(model):
    queries = made(two_targets())  # two groups of 3 + 3; the second image has one object in each
    boxes = queries.boxes_cxcywh_norm.clone()
    boxes[:, :6] = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(9))
    before, after = run(model, queries), run(model, replace(queries, boxes_cxcywh_norm=boxes))
    for one, other in zip(before["denoising_outputs"], after["denoising_outputs"], strict=True):
        assert torch.equal(one["pred_boxes"][:, 6:], other["pred_boxes"][:, 6:])
        assert not torch.equal(one["pred_boxes"][:, :6], other["pred_boxes"][:, :6])
    boxes = torch.where(queries.real[..., None], queries.boxes_cxcywh_norm, 0.3)
    after = run(model, replace(queries, boxes_cxcywh_norm=boxes))
    for one, other in zip(before["denoising_outputs"], after["denoising_outputs"], strict=True):
        assert torch.equal(one["pred_boxes"][queries.real], other["pred_boxes"][queries.real])
    padded = before["denoising_outputs"][-1]["pred_boxes"][~queries.real]
    assert not torch.equal(padded, after["denoising_outputs"][-1]["pred_boxes"][~queries.real])


def test_mask_query_by_query():
    real = torch.tensor([[True, True, True, True], [True, False, True, False]])  # two groups of one copy, one decoy
    full, padded = denoising_mask(real, groups=2, matching=1)[:, 0].int().tolist()
    assert full == [[1, 1, 0, 0, 1], [1, 1, 0, 0, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]
    assert padded == [[1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [0, 0, 1, 0, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 1]]


@pytest.mark.parametrize("flavour", ["grounding-dino", "mm-grounding-dino"])
def test_without_them_nothing_changes(flavour):
    model = small_detector(flavour)
    weights = set(model.state_dict())
    plain, denoised = run(model), run(model, made(two_targets()))
    assert "denoising_outputs" not in plain
    assert plain["pred_boxes"].shape == denoised["pred_boxes"].shape
    for one, other in zip(all_outputs(plain), all_outputs(denoised), strict=True):
        torch.testing.assert_close(one["pred_boxes"], other["pred_boxes"], atol=1e-5, rtol=0)
        torch.testing.assert_close(one["pred_logits"], other["pred_logits"], atol=1e-4, rtol=1e-4)
    assert set(model.state_dict()) == weights, "denoising has no weights of its own: folders load with and without"


@pytest.mark.parametrize("preset", ["grounding_dino", "mm_grounding_dino"])
@pytest.mark.parametrize(("seed", "counts"), [(0, (3, 0, 5)), (1, (1,)), (2, (4, 4))])
def test_loss_equals_plain_loops(preset, seed, counts):
    outputs, targets = random_batch(seed, counts=counts, decoder_layers=3)
    targets = level(targets)
    queries = made(targets, 9)
    outputs["denoising_outputs"] = _layers(targets, queries, 3)
    losses = build_criterion(preset, decoder_layers=3, denoising=True)(outputs, targets, denoising=queries)
    for index, layer in enumerate(outputs["denoising_outputs"]):
        suffix = "_dn" if index == 2 else f"_dn_{index}"
        for name, value in _by_loops(layer, targets, queries, outputs["text_token_mask"], preset).items():
            assert losses[name + suffix].item() == pytest.approx(value, rel=2e-5), name + suffix


def level(targets):
    """The targets with positive maps of one width, as a batch has them."""
    width = max(one.positive_map.shape[1] for one in targets)
    return [
        replace(one, positive_map=torch.nn.functional.pad(one.positive_map, (0, width - one.positive_map.shape[1])))
        for one in targets
    ]


def _layers(targets, queries, count):
    rng = np.random.default_rng(7)
    return [
        {key: layer[key] for key in ("pred_logits", "pred_boxes")}
        for layer in (outputs_for(rng, targets, queries.real.shape[1], 1) for _ in range(count))
    ]


def _by_loops(layer, targets, queries, token_mask, preset):
    sums = {"loss_ce": 0.0, "loss_bbox": 0.0, "loss_giou": 0.0}
    for image, one in enumerate(targets):
        truth = truth_of(one)
        objects = len(truth.boxes)
        most = max(len(t.class_ids) for t in targets)
        for query in range(queries.real.shape[1]):
            which, decoy = query % most, query // most % 2 == 1
            if which >= objects:
                continue
            wanted = [] if decoy else truth.tokens[which]
            for token in np.flatnonzero(token_mask[image].numpy()):
                logit = layer["pred_logits"][image, query, token].item()
                sums["loss_ce"] += _focal(logit, token in wanted, WEIGHTS[preset])
            if not decoy:
                box = layer["pred_boxes"][image, query].double().tolist()
                sums["loss_bbox"] += sum(abs(a - b) for a, b in zip(box, truth.boxes[which], strict=True))
                sums["loss_giou"] += 1 - giou(box, truth.boxes[which])
    boxes = max(sum(len(t.class_ids) for t in targets), 1)
    return {name: value / (boxes * queries.groups) for name, value in sums.items()}


def test_padding_gets_no_gradient_and_all_else_does():
    outputs, targets = random_batch(3, counts=(2, 4), decoder_layers=1)
    targets = level(targets)
    queries = made(targets, 8)
    outputs["denoising_outputs"] = _layers(targets, queries, 1)
    layer = outputs["denoising_outputs"][0]
    criterion = build_criterion(decoder_layers=1, denoising=True)
    losses = criterion(outputs, targets, denoising=queries)
    total = sum(criterion.weight_dict[name] * losses[name] for name in losses if "_dn" in name)
    logits, boxes = torch.autograd.grad(total, [layer["pred_logits"], layer["pred_boxes"]])
    valid = outputs["text_token_mask"][:, None] & queries.real[..., None]
    assert (logits[~valid] == 0).all()
    assert (logits[valid] != 0).all()
    assert (boxes[~queries.positive] == 0).all(), "a decoy has no box to move to"
    assert (boxes[queries.positive] != 0).any(-1).all()


def test_classes_that_nobody_looked_for_teach_nothing_but_what_they_are_wanted_on():
    outputs, targets = random_batch(6, counts=(3,), decoder_layers=1)
    targets = [replace(targets[0], class_ids=torch.zeros(3, dtype=torch.int64), unjudged_class_ids=(0, 1))]
    queries = made(targets, 6)
    outputs["denoising_outputs"] = _layers(targets, queries, 1)
    logits = outputs["denoising_outputs"][0]["pred_logits"]
    losses = build_criterion(decoder_layers=1, denoising=True)(outputs, targets, denoising=queries)
    (gradient,) = torch.autograd.grad(losses["loss_ce_dn"], logits)
    own, other = (torch.nonzero(row)[:, 0] for row in targets[0].positive_map[:2])
    assert (gradient[0][:, other] == 0).all()
    assert (gradient[0][:, own][queries.positive[0]] < 0).all()
    assert (gradient[0][:, own][~queries.positive[0]] == 0).all()


def test_names_and_weights_and_zeros_without_objects():
    outputs, targets = random_batch(4, counts=(0, 0), decoder_layers=2)
    criterion = build_criterion(decoder_layers=2, denoising=True)
    losses = criterion(outputs, targets)
    denoising = {name for name in losses if "_dn" in name}
    assert denoising == {f"loss_{kind}_dn{layer}" for kind in ("ce", "bbox", "giou") for layer in ("", "_0")}
    assert all(losses[name].item() == 0 for name in denoising)
    assert all(criterion.weight_dict[name] == criterion.weight_dict[name.partition("_dn")[0]] for name in denoising)
    plain = build_criterion(decoder_layers=2)
    assert criterion.total(losses).item() == plain.total(plain(outputs, targets)).item()


def test_gradients_reach_decoder_text_and_image():
    model = small_detector().train()
    targets = two_targets()
    queries = made(targets)
    outputs = model(**images((64, 96), (48, 64)), **prompts(*IDS), denoising=queries)
    criterion = build_criterion(decoder_layers=2, denoising=True)
    losses = criterion(outputs, targets, denoising=queries)
    total = sum(loss for name, loss in losses.items() if "_dn" in name)
    names, weights = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    reached = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None and gradient.any()}
    for wanted in ("model.decoder.layers.0.self_attn.value.weight", "model.text_projection.weight", "bbox_embed.0"):
        assert any(name.startswith(wanted) for name in reached), wanted
    assert any(name.startswith("model.backbone") for name in reached)


def test_awkward_boxes_stay_finite():
    rng = np.random.default_rng(5)
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 1.0, 0.2, 0.2], [0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 1.0, 1e-7]])
    targets = level([target(boxes, [0, 0, 0, 0], positive_map(rng, 1)), *random_targets(rng, (1,))])
    queries = made(targets, 40)
    outputs = outputs_for(rng, targets, decoder_layers=1)
    outputs["denoising_outputs"] = _layers(targets, queries, 1)
    losses = build_criterion(decoder_layers=1, denoising=True)(outputs, targets, denoising=queries)
    total = sum(losses.values())
    found = torch.autograd.grad(total, list(outputs["denoising_outputs"][0].values()))
    assert all(gradient.isfinite().all() for gradient in found)
    assert total.isfinite()


def test_the_queries_of_an_image_depend_on_its_seed_alone():
    """Whatever stands before it in the batch, as when two processes share what one would see."""
    first, second = (replace(one, seed=seed) for one, seed in zip(two_targets((3, 3)), (5, 2**61), strict=True))
    together, alone = made([first, second]), made([second], seed=99)
    assert torch.equal(together.boxes_cxcywh_norm[1], alone.boxes_cxcywh_norm[0])
    assert torch.equal(together.label_maps[1], alone.label_maps[0])
    other = made([replace(second, seed=6)])
    assert not torch.equal(other.boxes_cxcywh_norm, alone.boxes_cxcywh_norm)
    fewer = made([first, replace(two_targets((3, 1))[1], seed=5)])  # padded to the fuller image
    assert torch.equal(
        fewer.boxes_cxcywh_norm[1][fewer.real[1]],
        made([replace(two_targets((3, 1))[1], seed=5)], 2).boxes_cxcywh_norm[0],
    )
