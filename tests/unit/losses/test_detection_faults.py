"""The peers' mistakes in this loss (letters of docs/correctness.md), each rejected by a check that ours passes.

Every check is a function that raises AssertionError; it runs once on ours and once with the faulty form put in.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detection_batches import gradients, layers_of, outputs_for, positive_map, random_batch, target
from reference_detection_loss import WEIGHTS, pair_cost, reference_losses, truth_of

from deixis.geometry import boxes as geometry
from deixis.losses import detection, matcher
from deixis.losses.detection import build_criterion
from deixis.losses.matcher import NonFiniteCostError
from deixis.losses.packing import PackedTargets, pack_targets


def check_matching_cost(preset: str) -> None:
    """A: the preset's class cost, in float32, finite."""
    outputs, targets = random_batch(0, counts=(4,), decoder_layers=1, scale=6.0)
    mask = outputs["text_token_mask"][:, : targets[0].positive_map.shape[1]]
    logits = outputs["pred_logits"].detach()[None, ..., : mask.shape[1]]
    packed = pack_targets(targets, torch.device("cpu"))
    costs = build_criterion(preset).matcher.costs(logits, outputs["pred_boxes"].detach()[None], mask, packed)[0, 0]
    truth = truth_of(targets[0])
    expected = [
        [
            pair_cost(row.double().numpy(), box.double().tolist(), wanted, tokens, WEIGHTS[preset])
            for row, box in queries
        ]
        for wanted, tokens in zip(truth.boxes, truth.tokens, strict=True)
        for queries in [list(zip(logits[0, 0], outputs["pred_boxes"][0].detach(), strict=True))]
    ]
    np.testing.assert_allclose(costs.numpy(), np.array(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", WEIGHTS)
def test_a_the_class_cost_is_the_presets(preset, monkeypatch):
    check_matching_cost(preset)
    other = next(name for name in WEIGHTS if name != preset)
    monkeypatch.setitem(detection.PRESETS, preset, detection.PRESETS[other])
    with pytest.raises(AssertionError):
        check_matching_cost(preset)


@pytest.mark.parametrize("preset", WEIGHTS)
def test_a_half_precision_costs_are_rejected(preset, monkeypatch):
    def in_half(logits, alpha, gamma):
        yes = logits.half().sigmoid()  # 1e-8 is 0 in float16
        as_positive = -alpha * (1 - yes) ** gamma * (yes + 1e-8).log()
        return as_positive.float(), (-(1 - alpha) * yes**gamma * (1 - yes + 1e-8).log()).float()

    monkeypatch.setattr(matcher, "focal_costs", in_half)
    with pytest.raises(AssertionError):
        check_matching_cost(preset)


def check_normaliser() -> None:
    """B: sums over boxes, not over queries."""
    outputs, targets = random_batch(1, counts=(2, 1))
    losses = build_criterion()(outputs, targets)
    for name, value in reference_losses(outputs, targets, "grounding_dino").items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("queries_times", [7.0, 1 / 7])
def test_b_a_normaliser_with_the_number_of_queries_is_rejected(queries_times, monkeypatch):
    check_normaliser()
    monkeypatch.setattr(detection, "boxes_per_process", lambda count, device: torch.tensor(count * queries_times))
    with pytest.raises(AssertionError):
        check_normaliser()


def check_encoder_learns_tokens(outputs, targets, **settings) -> None:
    """C: the encoder's logits and boxes get gradients, towards the tokens of the class each query is matched to."""
    criterion = build_criterion(**settings)
    losses = criterion(outputs, targets)
    encoder = outputs["enc_outputs"]
    total = sum(losses[name + "_enc"] for name in ("loss_ce", "loss_bbox", "loss_giou"))
    logits, boxes = torch.autograd.grad(total, [encoder["pred_logits"], encoder["pred_boxes"]])
    assert boxes.abs().sum() > 0
    raised = {tuple(found) for found in (logits < 0).nonzero()[:, [0, 2]].tolist()}
    wanted = {
        (image, token)
        for image, one in enumerate(targets)
        for token in one.positive_map[one.class_ids].nonzero()[:, 1].tolist()
    }
    assert raised == wanted


def test_c_the_encoder_learns_the_classes_unless_asked_otherwise():
    outputs, targets = random_batch(2)
    check_encoder_learns_tokens(outputs, targets)
    with pytest.raises(AssertionError):  # one score whatever the class: an option, not the default
        check_encoder_learns_tokens(outputs, targets, encoder_loss="objectness")


def test_c_detached_encoder_boxes_are_rejected(monkeypatch):
    stack = detection.stacked_layers

    def with_detached_encoder(layers, token_mask):
        logits, boxes = stack(layers, token_mask)
        return logits, torch.cat([boxes[:-1], boxes[-1:].detach()])

    outputs, targets = random_batch(2)
    monkeypatch.setattr(detection, "stacked_layers", with_detached_encoder)
    with pytest.raises((AssertionError, RuntimeError)):
        check_encoder_learns_tokens(outputs, targets)


def check_prompts_of_their_own() -> None:
    """D: an image's classes are those of its own prompt. Three images: an offset of one image is right by accident."""
    rng = np.random.default_rng(0)
    truth = [target([[0.5, 0.5, 0.1, 0.4]], [count - 1], positive_map(rng, count), count) for count in (2, 3, 1)]
    outputs = outputs_for(rng, truth)
    losses = build_criterion()(outputs, truth)
    for name, value in reference_losses(outputs, truth, "grounding_dino").items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name


def test_d_an_offset_that_is_not_cumulative_is_rejected(monkeypatch):
    check_prompts_of_their_own()

    def with_single_offset(self: PackedTargets):
        rows = torch.cat([maps[mask] for maps, mask in zip(self.class_maps, self.class_mask, strict=True)])
        offsets = self.class_mask.sum(1) * (torch.arange(len(self.class_mask)) > 0)  # len(label_maps[i]), not the sum
        return rows[(self.class_ids + offsets[:, None]).clamp(max=len(rows) - 1)]

    monkeypatch.setattr(PackedTargets, "token_maps", property(with_single_offset))
    with pytest.raises(AssertionError):
        check_prompts_of_their_own()


def check_every_layer_learns(outputs, targets) -> None:
    """H: all seven layers are trained."""
    criterion = build_criterion()
    for gradient in gradients(outputs, criterion.total(criterion(outputs, targets))):
        assert gradient.numel()
        assert gradient.abs().sum() > 0


def test_h_only_the_last_layer_is_rejected(monkeypatch):
    outputs, targets = random_batch(3)
    check_every_layer_learns(outputs, targets)
    whole = detection.DetectionCriterion.__call__

    def last_layer_only(self, outputs, targets, num_boxes=None):
        return whole(self, {**outputs, "aux_outputs": []}, targets, num_boxes)

    monkeypatch.setattr(detection.DetectionCriterion, "__call__", last_layer_only)
    with pytest.raises(AssertionError):
        check_every_layer_learns(outputs, targets)


def check_padding_is_left_out() -> None:
    """I: with -inf on padding and prompts of different length: finite, and equal to no padding."""
    outputs, targets = random_batch(4, counts=(3, 1), text_len=60)
    criterion = build_criterion()
    losses = criterion(outputs, targets)
    for name, value in reference_losses(outputs, targets, "grounding_dino").items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name
    assert all(gradient.isfinite().all() for gradient in gradients(outputs, criterion.total(losses)))


def minus_infinity(layers, token_mask):
    logits = torch.stack([layer["pred_logits"][..., : token_mask.shape[1]] for layer in layers.values()])
    return logits, torch.stack([layer["pred_boxes"] for layer in layers.values()])


def patched_with_zero(layers, token_mask):
    logits, boxes = minus_infinity(layers, token_mask)
    return logits.nan_to_num(neginf=0.0), boxes


def bce_focal(logits, positive, mask, alpha, gamma):
    """As it is usually written: finite on padding once masked, but its gradient is not."""
    p, y = logits.sigmoid(), positive.float()
    p_t = p * y + (1 - p) * (1 - y)
    bce = -(y * F.logsigmoid(logits) + (1 - y) * F.logsigmoid(-logits))
    return torch.where(mask[:, None], (alpha * y + (1 - alpha) * (1 - y)) * bce * (1 - p_t) ** gamma, 0.0).sum(
        (1, 2, 3)
    )


@pytest.mark.parametrize("stack", [minus_infinity, patched_with_zero])
def test_i_padding_in_the_focal_loss_is_rejected(stack, monkeypatch):
    check_padding_is_left_out()
    valid_tokens = detection.valid_tokens
    monkeypatch.setattr(detection, "stacked_layers", stack)
    monkeypatch.setattr(detection, "focal_loss_sums", bce_focal)
    if stack is patched_with_zero:
        monkeypatch.setattr(detection, "valid_tokens", lambda *call: torch.ones_like(valid_tokens(*call)))
    with pytest.raises((AssertionError, NonFiniteCostError)):
        check_padding_is_left_out()


def check_nan_costs_are_reported() -> None:
    outputs, targets = random_batch(5)
    with torch.no_grad():
        outputs["pred_logits"][0, 0, 0] = torch.nan
    try:
        build_criterion()(outputs, targets)
    except NonFiniteCostError:
        return
    raise AssertionError("NaN was hidden")


def test_i_costs_that_hide_nan_are_rejected(monkeypatch):
    check_nan_costs_are_reported()
    costs = matcher.HungarianMatcher.costs
    monkeypatch.setattr(matcher.HungarianMatcher, "costs", lambda *call: costs(*call).nan_to_num(nan=1e30))
    with pytest.raises(AssertionError):
        check_nan_costs_are_reported()


def check_class_score() -> None:
    """K: the mean over a class's tokens decides, not its best token: "red cup" is not "red plate"."""
    rows = torch.tensor([[0, 0.5, 0.5, 0, 0], [0, 0, 0, 1.0, 0]])
    truth = [target([[0.5, 0.5, 0.1, 0.4]], [1], rows)]
    outputs = outputs_for(np.random.default_rng(0), truth, queries=1, decoder_layers=1)
    with torch.no_grad():
        outputs["pred_logits"][0, 0, :5] = torch.tensor([-9.0, 3.0, -9.0, 1.0, -9.0])
    assert build_criterion()(outputs, truth)["class_error"].item() == 0.0


def test_k_the_best_token_is_rejected(monkeypatch):
    check_class_score()

    def best_token(logits, queries, targets):
        scores = (logits.sigmoid()[:, :, None] * (targets.class_maps > 0)[:, None]).amax(-1)
        best = scores.gather(1, queries[..., None].expand(-1, -1, scores.shape[-1])).argmax(-1)
        return 100 * (best != targets.class_ids).float().mean()

    monkeypatch.setattr(detection, "class_error", best_token)
    with pytest.raises(AssertionError):
        check_class_score()


def check_flat_boxes() -> None:
    """L: a prediction and a target without area: everything finite, nothing thrown away silently."""
    rows = torch.tensor([[0.0, 1.0, 0.0]])
    truth = [target([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.2, 0.2, 0.1, 0.4]], [0, 0, 0], rows)]
    outputs = outputs_for(np.random.default_rng(0), truth, queries=3)
    with torch.no_grad():
        for layer in layers_of(outputs):
            layer["pred_boxes"].copy_(truth[0].boxes_cxcywh_norm)
    criterion = build_criterion()
    losses = criterion(outputs, truth)
    assert all(loss.isfinite() for loss in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients(outputs, criterion.total(losses)))


def test_l_an_unguarded_ratio_is_rejected(monkeypatch):
    check_flat_boxes()
    monkeypatch.setattr(geometry, "_ratio", lambda part, whole: part / whole)
    with pytest.raises((AssertionError, NonFiniteCostError)):
        check_flat_boxes()


def test_l_a_guard_on_the_value_alone_is_rejected(monkeypatch):
    """where(x > 0, a / x, 0) has a finite value and a NaN gradient."""

    def value_only(part, whole):
        return torch.where(whole > 0, part / whole, torch.zeros(()))

    monkeypatch.setattr(geometry, "_ratio", value_only)
    with pytest.raises(AssertionError):
        check_flat_boxes()


def check_no_boxes() -> None:
    """L: a batch without objects trains the classes and keeps every box head in the graph."""
    outputs, targets = random_batch(6, counts=(0, 0))
    criterion = build_criterion()
    losses = criterion(outputs, targets)
    assert all(loss.isfinite() for loss in losses.values())
    for gradient in gradients(outputs, criterion.total(losses)):
        assert gradient.numel()
        assert gradient.isfinite().all()


def test_l_a_zero_made_from_the_sum_of_outputs_is_rejected(monkeypatch):
    check_no_boxes()
    supervise = detection.DetectionCriterion._supervise

    def with_sum_times_zero(self, logits, boxes, mask, **more):
        losses, queries = supervise(self, logits, boxes, mask, **more)
        padded = torch.where(mask[:, None], logits, -torch.inf)  # as the model returns them
        return {name: loss + padded.sum() * 0 for name, loss in losses.items()}, queries

    monkeypatch.setattr(detection.DetectionCriterion, "_supervise", with_sum_times_zero)
    with pytest.raises(AssertionError):
        check_no_boxes()


def test_l_a_normaliser_of_no_boxes_is_rejected(monkeypatch):
    monkeypatch.setattr(detection, "boxes_per_process", lambda count, device: torch.tensor(float(count)))
    with pytest.raises(AssertionError):
        check_no_boxes()
