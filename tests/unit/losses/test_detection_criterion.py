"""The detector's loss: names, values against the float64 reference, gradients, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detection_batches import (
    awkward_batch,
    gradients,
    layers_of,
    leaves_of,
    outputs_for,
    positive_map,
    random_batch,
    target,
)
from reference_detection_loss import reference_losses
from torch.utils._python_dispatch import TorchDispatchMode

from deixis.errors import OptionError, TrainingError
from deixis.losses import matcher
from deixis.losses.boxes import boxes_per_process
from deixis.losses.detection import PRESETS, DetectionCriterion, build_criterion
from deixis.losses.matcher import HungarianMatcher, NonFiniteCostError

CONFIGURATIONS = [(preset, encoder) for preset in PRESETS for encoder in ("token", "objectness")]


def test_without_any_box_box_losses_are_zero_and_connected():
    outputs, targets = random_batch(0, counts=(0, 0))
    criterion = build_criterion()
    losses = criterion(outputs, targets)
    for suffix in ("", "_0", "_4", "_enc"):
        assert losses["loss_bbox" + suffix].item() == 0.0
        assert losses["loss_giou" + suffix].item() == 0.0
    assert losses["class_error"].item() == 0.0
    box_total = sum(loss for name, loss in losses.items() if "bbox" in name or "giou" in name)
    box_gradients = torch.autograd.grad(box_total, [layer["pred_boxes"] for layer in layers_of(outputs)])
    assert all((gradient == 0).all() for gradient in box_gradients)  # there, so DDP finds them, and nothing


def test_one_query_one_token_one_class():
    rows = torch.tensor([[1.0]])
    outputs = outputs_for(np.random.default_rng(0), [target([[0.5, 0.5, 0.1, 0.4]], [0], rows)], queries=1, text_len=1)
    with torch.no_grad():
        outputs["pred_logits"].fill_(0.0)
        outputs["pred_boxes"].copy_(torch.tensor([0.5, 0.5, 0.4, 0.1]))  # width and height swapped
    losses = build_criterion()(outputs, [target([[0.5, 0.5, 0.1, 0.4]], [0], rows)])
    assert losses["loss_ce"].item() == pytest.approx(0.25 * 0.25 * np.log(2))
    assert losses["loss_bbox"].item() == pytest.approx(0.6)
    # boxes 0.1 x 0.4 and 0.4 x 0.1 share 0.01 of a union of 0.07 in a hull of 0.16
    assert losses["loss_giou"].item() == pytest.approx(1 - (0.01 / 0.07 - 0.09 / 0.16), rel=1e-5)


def test_twenty_one_components_each_with_a_weight():
    outputs, targets = random_batch(1)
    criterion = build_criterion()
    losses = criterion(outputs, targets)
    suffixes = ["", "_0", "_1", "_2", "_3", "_4", "_enc"]
    expected = {name + suffix for suffix in suffixes for name in ("loss_ce", "loss_bbox", "loss_giou")}
    assert len(expected) == 21
    assert set(losses) == expected | {"class_error"} == set(criterion.weight_dict)
    assert all(loss.shape == () and loss.dtype == torch.float32 for loss in losses.values())


@pytest.mark.parametrize(("preset", "weights"), [("grounding_dino", (2, 5, 2)), ("mm_grounding_dino", (1, 5, 2))])
def test_total_weighs_each_component(preset, weights):
    outputs, targets = random_batch(2)
    criterion = build_criterion(preset)
    losses = criterion(outputs, targets)
    by_hand = sum(
        weight * losses[name + suffix]
        for suffix in ("", "_0", "_1", "_2", "_3", "_4", "_enc")
        for name, weight in zip(("loss_ce", "loss_bbox", "loss_giou"), weights, strict=True)
    )
    assert criterion.total(losses).item() == pytest.approx(by_hand.item(), rel=1e-6)
    assert criterion.weight_dict["class_error"] == 0


@pytest.mark.parametrize(("preset", "encoder_loss"), CONFIGURATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_float64_reference(preset, encoder_loss, seed):
    counts = [(3, 0, 5), (0,), (1,), (9, 2), (4, 4, 4, 1), (0, 0)][seed]
    outputs, targets = random_batch(seed, counts=counts, decoder_layers=1 + seed)
    losses = build_criterion(preset, encoder_loss)(outputs, targets)
    expected = reference_losses(outputs, targets, preset, encoder_loss)
    assert set(expected) == set(losses) - {"class_error"}
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=2e-5, abs=1e-6), name


@pytest.mark.parametrize(("preset", "encoder_loss"), CONFIGURATIONS)
def test_gradients_equal_the_references_differences(preset, encoder_loss):
    outputs, targets = random_batch(11, counts=(3, 2), decoder_layers=2, dtype=torch.float64)
    criterion = build_criterion(preset, encoder_loss)
    analytic = gradients(outputs, criterion.total(criterion(outputs, targets)))
    rng = np.random.default_rng(0)
    step = 1e-6

    def reference_total() -> float:
        losses = reference_losses(outputs, targets, preset, encoder_loss)
        return sum(criterion.weight_dict[name] * value for name, value in losses.items())

    for leaf, gradient in zip(leaves_of(outputs), analytic, strict=True):
        finite = np.argwhere(np.isfinite(leaf.detach().numpy()))
        largest = np.unravel_index(int(gradient.abs().argmax()), gradient.shape)
        for position in [largest, *(tuple(finite[i]) for i in rng.integers(0, len(finite), 3))]:
            at = leaf.detach()
            before = at[position].item()
            at[position] = before + step
            above = reference_total()
            at[position] = before - step
            below = reference_total()
            at[position] = before
            assert gradient[position].item() == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("chunk", range(8))
def test_awkward_batches_give_finite_losses_and_gradients(chunk):
    for seed in range(chunk * 320, (chunk + 1) * 320):
        outputs, targets = awkward_batch(seed)
        preset, encoder_loss = CONFIGURATIONS[seed % 4]
        criterion = build_criterion(preset, encoder_loss)
        losses = criterion(outputs, targets)
        assert all(loss.isfinite() for loss in losses.values()), (seed, losses)
        for leaf, gradient in zip(leaves_of(outputs), gradients(outputs, criterion.total(losses)), strict=True):
            assert gradient.shape == leaf.shape, seed
            assert gradient.isfinite().all(), seed


def test_padded_tokens_get_exactly_no_gradient_whatever_they_hold():
    outputs, targets = random_batch(3)
    padded = ~outputs["text_token_mask"][:, None].expand_as(outputs["pred_logits"])
    assert padded[:, :, : max(t.positive_map.shape[1] for t in targets)].any()  # some within the longest prompt too
    criterion = build_criterion()
    losses = criterion(outputs, targets)
    for logits in gradients(outputs, criterion.total(losses))[::2]:
        assert (logits[padded] == 0).all()
    for layer in layers_of(outputs):
        layer["pred_logits"] = layer["pred_logits"].detach().masked_fill(padded, torch.nan)
    again = criterion(outputs, targets)
    assert all(torch.equal(losses[name], again[name]) for name in losses)


def test_more_boxes_than_queries_uses_every_query_once():
    outputs, targets = random_batch(4, counts=(9,), queries=2)
    losses = build_criterion()(outputs, targets)
    assert losses["loss_bbox"].item() == pytest.approx(
        reference_losses(outputs, targets, "grounding_dino")["loss_bbox"]
    )
    assert losses["loss_bbox"].item() > 0


def test_bf16_outputs_are_compared_in_fp32():
    outputs, targets = random_batch(5, dtype=torch.bfloat16)
    losses = build_criterion()(outputs, targets)
    for name, value in reference_losses(outputs, targets, "grounding_dino").items():
        assert losses[name].item() == pytest.approx(value, rel=2e-5, abs=1e-6)


def test_autocast_does_not_reach_the_loss():
    outputs, targets = random_batch(6)
    plain = build_criterion()(outputs, targets)
    with torch.autocast("cpu", torch.bfloat16):
        cast = build_criterion()(outputs, targets)
    assert all(torch.equal(plain[name], cast[name]) for name in plain)


def test_accumulated_batches_equal_the_joined_one():
    outputs, targets = random_batch(7, counts=(1, 6))
    criterion = build_criterion()
    whole = criterion(outputs, targets)
    boxes = boxes_per_process(7, torch.device("cpu"))
    parts = [criterion(_image(outputs, i), [targets[i]], num_boxes=boxes) for i in range(2)]
    for name in set(whole) - {"class_error"}:
        assert whole[name].item() == pytest.approx((parts[0][name] + parts[1][name]).item(), rel=1e-5)


def _image(outputs, index):
    def cut(layer):
        return {name: layer[name][index : index + 1] for name in ("pred_logits", "pred_boxes")}

    mask = outputs["text_token_mask"][index : index + 1].clone()
    aux = [cut(layer) for layer in outputs["aux_outputs"]]
    return {**cut(outputs), "text_token_mask": mask, "aux_outputs": aux, "enc_outputs": cut(outputs["enc_outputs"])}


def test_layer_weights_are_used():
    outputs, targets = random_batch(8)
    base = {"weight_class": 1.0, "weight_l1": 1.0, "weight_giou": 1.0}
    totals = set()
    for option, value in [("alpha", 0.25), *((name, 2.0) for name in base), ("alpha", 0.5), ("gamma", 1.0)]:
        criterion = DetectionCriterion(HungarianMatcher(), **{**base, option: value})
        totals.add(round(criterion.total(criterion(outputs, targets)).item(), 4))
    assert len(totals) == 6


def test_class_error_is_a_percentage_of_matched_queries():
    rows = positive_map(np.random.default_rng(0), 2, max_tokens=1)  # tokens 1 and 3
    truth = [target([[0.2, 0.2, 0.1, 0.3], [0.7, 0.7, 0.1, 0.3]], [0, 1], rows)]
    outputs = outputs_for(np.random.default_rng(0), truth, queries=2, decoder_layers=1, scale=0.0)
    with torch.no_grad():
        outputs["pred_boxes"][0] = truth[0].boxes_cxcywh_norm
        outputs["pred_logits"][0, :, 1] = 1.0  # both queries say class 0
    assert build_criterion()(outputs, truth)["class_error"].item() == 50.0


def test_never_waits_for_the_device(monkeypatch):
    """No op whose result the host needs but the one copy of the costs: each would stall a GPU."""
    monkeypatch.setattr(matcher, "_only_class_tokens", lambda *call: call)  # what it does on a GPU
    outputs, targets = random_batch(9)
    seen = set()

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with Recorder():
        criterion = build_criterion()
        criterion.total(criterion(outputs, targets)).backward()
    assert "scatter_" in seen
    assert not seen & {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique"}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(("where", "name"), [(0, "decoder layer 5"), (1, "decoder layer 0"), (6, "encoder")])
def test_a_nan_is_reported_with_its_layer_and_image(bad, where, name):
    outputs, targets = random_batch(10)
    with torch.no_grad():
        layers_of(outputs)[where]["pred_boxes"][2, 3, 1] = bad
    with pytest.raises(NonFiniteCostError, match=r"labels.json: image 2 .* " + name) as caught:
        build_criterion()(outputs, targets)
    assert (caught.value.layer, caught.value.image) == (name, 2)


def test_a_mask_longer_than_the_positive_maps_is_refused():
    outputs, targets = random_batch(12)
    outputs["text_token_mask"][:, :] = True
    with pytest.raises(RuntimeError, match="reaches beyond"):
        build_criterion()(outputs, targets)


def test_targets_that_do_not_fit_the_outputs_are_refused():
    outputs, targets = random_batch(13)
    with pytest.raises(TrainingError, match="3 images of at most 40 tokens, targets for 2 images"):
        build_criterion()(outputs, targets[:2])
    with pytest.raises(TrainingError, match="6 decoder layers, the criterion was built for 3"):
        build_criterion(decoder_layers=3)(outputs, targets)
    with pytest.raises(TrainingError, match="at least one image"):
        build_criterion()(outputs, [])


def test_impossible_options_are_refused():
    with pytest.raises(OptionError, match="grounding_dino, mm_grounding_dino"):
        build_criterion("dino")
    with pytest.raises(OptionError, match="negative"):
        DetectionCriterion(HungarianMatcher(), weight_l1=-1.0)
