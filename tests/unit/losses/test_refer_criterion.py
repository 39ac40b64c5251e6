"""The segmenter's criterion: against plain loops, its two behaviours, and awkward targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference_refer_loss import losses as reference
from torch import Tensor

from deixis.errors import OptionError, TrainingError
from deixis.losses.refer import ReferCriterion

SIZE = 12


def outputs(objects: int, labels: int = 7, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    found = {
        "pred_masks": 3 * torch.randn(objects, 3, SIZE, SIZE, generator=g),
        "pred_ious": torch.rand(objects, 3, generator=g),
        "object_scores": 2 * torch.randn(objects, generator=g),
        "label_logits": 3 * torch.randn(labels, 11, generator=g),
    }
    found = {name: value.to(dtype).requires_grad_() for name, value in found.items()}
    return found | {"label_ids": torch.randint(11, (labels,), generator=g)}


def targets(objects: int, absent: int = 0, seed: int = 1) -> Tensor:
    masks = torch.rand(objects, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) > 0.7
    masks[:absent] = False
    return masks


def gradients(criterion: ReferCriterion, out: dict[str, Tensor], masks: Tensor, **more: Any) -> dict[str, Tensor]:
    """Backward of the total; the gradients of all outputs, which must have one."""
    criterion.total(criterion(out, masks, **more)).backward()
    found = {}
    for name in out.keys() - {"label_ids"}:
        gradient = out[name].grad
        found[name] = torch.zeros_like(out[name]) if gradient is None else gradient
    return found


@pytest.mark.parametrize("behaviour", ["deixis", "sa2va"])
@pytest.mark.parametrize("iou_loss", ["l1", "mse"])
@pytest.mark.parametrize("absent", [0, 2, 5])
def test_equals_plain_loops_in_float64(behaviour: Any, iou_loss: Any, absent: int) -> None:
    out, masks = outputs(5), targets(5, absent)
    found = ReferCriterion(behaviour, iou_loss=iou_loss, points=None)(out, masks)
    plain = {name: value.detach().double().numpy() for name, value in out.items()}
    plain["label_ids"] = out["label_ids"].numpy()
    wanted = reference(plain, masks.numpy(), behaviour, squared=iou_loss == "mse")
    assert {name: float(value.detach()) for name, value in found.items()} == pytest.approx(wanted, rel=2e-5, abs=1e-6)


def edge_cases() -> tuple[dict[str, Tensor], Tensor]:
    """Every pair of an edge target and an edge prediction, the prediction in each of the three places once."""
    grid = torch.zeros(6, SIZE, SIZE, dtype=torch.bool)  # the first stays empty
    grid[1], grid[2, 0, 0], grid[3, 5, 7], grid[5, :, 3] = True, True, True, True
    grid[4] = ~grid[3]
    cases = []
    for target in grid:
        right = torch.where(target, 8.0, -8.0)
        off_by_one = torch.where(target.roll(1, 0), 8.0, -8.0)
        cases += [
            (target, p) for p in (torch.full_like(right, -8), 0 * right, 8 + 0 * right, right, -right, off_by_one)
        ]
    masks = torch.stack([target for target, _ in cases])
    predictions = torch.stack([prediction for _, prediction in cases])
    g = torch.Generator().manual_seed(2)
    three = torch.stack([predictions, predictions.roll(1, 0), predictions.roll(2, 0)], 1)
    out = outputs(len(cases), seed=5) | {"pred_masks": three.requires_grad_()}
    return out | {"pred_ious": torch.rand(len(cases), 3, generator=g).requires_grad_()}, masks


@pytest.mark.parametrize("behaviour", ["deixis", "sa2va"])
def test_empty_full_and_one_pixel_masks_equal_plain_loops(behaviour: Any) -> None:
    """One object at a time, so that no error hides in a mean."""
    out, masks = edge_cases()
    criterion = ReferCriterion(behaviour, points=None)
    for n in range(len(masks)):
        one = {name: value if name.startswith("label") else value[n : n + 1] for name, value in out.items()}
        found = criterion(one, masks[n : n + 1], num_objects=1)
        plain = {name: value.detach().double().numpy() for name, value in one.items()} | {
            "label_ids": one["label_ids"].numpy()
        }
        wanted = reference(plain, masks[n : n + 1].numpy(), behaviour)
        assert {k: float(v.detach()) for k, v in found.items()} == pytest.approx(wanted, rel=1e-5, abs=1e-6), n


@pytest.mark.parametrize("behaviour", ["deixis", "sa2va"])
def test_points_of_edge_masks_have_finite_gradients(behaviour: Any) -> None:
    """A single pixel may be missed by all points. Within half a pixel of the border points see less of a full mask and
    of its logits alike, as in the authors' code."""
    out, masks = edge_cases()
    found = gradients(ReferCriterion(behaviour, points=40), out, masks, generator=torch.Generator().manual_seed(0))
    assert all(gradient.isfinite().all() for gradient in found.values())
    empty = ~masks.flatten(1).any(1)
    assert (found["pred_masks"][empty] >= 0).all()  # nothing meant: no logit rises


def test_sa2va_supervises_the_mask_of_the_highest_predicted_iou_and_nothing_else() -> None:
    out, masks = outputs(4), targets(4, absent=1)
    found = gradients(ReferCriterion("sa2va", points=None), out, masks)
    touched = found["pred_masks"].abs().sum((2, 3)) > 0
    assert torch.equal(touched, torch.nn.functional.one_hot(out["pred_ious"].argmax(1), 3).bool())
    assert not found["pred_ious"].any()
    assert not found["object_scores"].any()


def test_deixis_supervises_the_best_mask_whatever_iou_was_predicted() -> None:
    out, masks = outputs(3), targets(3)
    with torch.no_grad():
        out["pred_masks"][:, 2] = torch.where(masks, 6.0, -6.0)
        out["pred_ious"][:] = torch.tensor([0.9, 0.8, 0.1])  # the wrong one is predicted to be best
    found = gradients(ReferCriterion("deixis", points=None), out, masks)
    assert (found["pred_masks"].abs().sum((2, 3)) > 0).tolist() == [[False, False, True]] * 3
    assert (found["pred_ious"].abs() > 0).all()
    assert (found["pred_ious"][:, 2] < 0).all(), "its predicted IoU must rise"
    assert (found["pred_ious"][:, 0] > 0).all()
    assert (found["object_scores"] < 0).all()


def test_all_three_masks_are_supervised_where_prompts_point() -> None:
    out, masks = outputs(4), targets(4, absent=1)
    pointing = {"point_logits": torch.zeros(4, 3, 3)}
    losses = ReferCriterion(points=None)(out | pointing, masks)
    ones = [
        ReferCriterion(points=None)({**out, "pred_masks": out["pred_masks"][:, i : i + 1].expand(-1, 3, -1, -1)}, masks)
        for i in range(3)
    ]
    for name in ("loss_mask", "loss_dice"):
        assert float(losses[name].detach()) == pytest.approx(sum(float(one[name].detach()) for one in ones) / 3)
    found = gradients(ReferCriterion(points=50), out | pointing, masks)
    assert (found["pred_masks"].abs().sum((2, 3)) > 0).tolist() == [[False] * 3] + [[True] * 3] * 3


@pytest.mark.parametrize("points", [None, 50])
def test_an_absent_object_trains_the_object_score_alone(points: int | None) -> None:
    out, masks = outputs(3), targets(3, absent=3)
    found = gradients(ReferCriterion("deixis", points=points), out, masks)
    assert not found["pred_masks"].any()
    assert not found["pred_ious"].any()
    assert (found["object_scores"] > 0).all()


@pytest.mark.parametrize("behaviour", ["deixis", "sa2va"])
@pytest.mark.parametrize("points", [None, 30])
@pytest.mark.parametrize("labels", [0, 4])
def test_no_object_is_an_exact_zero_that_keeps_the_graph(behaviour: Any, points: int | None, labels: int) -> None:
    scale = torch.ones((), requires_grad=True)  # a parameter upstream, which every process must give a gradient
    out = outputs(0, labels)
    scaled = {name: value if name == "label_ids" else value * scale for name, value in out.items()}
    criterion = ReferCriterion(behaviour, points=points)
    losses = criterion(scaled, targets(0))
    assert all(float(losses[name].detach()) == 0 for name in losses if name != "loss_language")
    assert (float(losses["loss_language"].detach()) == 0) == (labels == 0)
    assert all(losses[name].requires_grad for name in losses if name != "iou")
    criterion.total(losses).backward()
    assert scale.grad is not None
    assert scale.grad.isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_float32_whatever_the_model_computes_in(dtype: torch.dtype) -> None:
    out, masks = outputs(4, dtype=dtype), targets(4)
    same = {name: value if name == "label_ids" else value.detach().float() for name, value in out.items()}
    criterion = ReferCriterion(points=100)
    with torch.autocast("cpu", torch.bfloat16):
        found = criterion(out, masks, generator=torch.Generator().manual_seed(0))
    wanted = criterion(same, masks, generator=torch.Generator().manual_seed(0))
    assert all(value.dtype == torch.float32 for value in found.values())
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    assert all(g.dtype == dtype and g.isfinite().all() for g in gradients(criterion, out, masks).values())


@pytest.mark.parametrize("behaviour", ["deixis", "sa2va"])
def test_extreme_logits_give_finite_losses_and_gradients(behaviour: Any) -> None:
    out, masks = outputs(4), targets(4, absent=1)
    with torch.no_grad():
        for name in ("pred_masks", "object_scores", "label_logits"):
            out[name] *= 1e4
    criterion = ReferCriterion(behaviour, points=64)
    assert all(value.isfinite() for value in criterion(out, masks).values())
    assert all(g.isfinite().all() for g in gradients(criterion, out, masks).values())


def test_points_approach_all_pixels() -> None:
    # drawn evenly from a mask wide enough for its rim, where points see zeros outside, to count for little
    g = torch.Generator().manual_seed(4)
    blocks = torch.randn(1, 1, 4, 4, generator=g).repeat_interleave(32, 2).repeat_interleave(32, 3)
    out = outputs(1) | {"pred_masks": blocks.expand(1, 3, -1, -1).clone()}
    masks = torch.zeros(1, 128, 128, dtype=torch.bool)
    masks[:, 20:90, 30:70] = True
    dense = ReferCriterion(points=None)(out, masks)
    drawn = ReferCriterion(points=40_000, importance=0.0)(out, masks, generator=g)
    assert float(drawn["loss_mask"]) == pytest.approx(float(dense["loss_mask"]), rel=0.02)
    assert float(drawn["loss_dice"]) == pytest.approx(float(dense["loss_dice"]), rel=0.02)


def test_points_follow_the_generator_alone() -> None:
    out, masks = outputs(3), targets(3)
    criterion = ReferCriterion(points=40)
    first, again, other = (criterion(out, masks, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert first == again
    assert float(first["loss_mask"].detach()) != float(other["loss_mask"].detach())
    assert float(first["iou"]) == float(other["iou"]), "the IoU is over all pixels"


def test_normalised_by_what_is_given() -> None:
    out, masks = outputs(4), targets(4)
    criterion = ReferCriterion(points=None)
    whole, half = criterion(out, masks), criterion(out, masks, num_objects=8, num_labels=14)
    for name in whole:
        assert float(half[name].detach()) == pytest.approx(float(whole[name].detach()) / 2)


def test_batches_with_a_common_normaliser_add_up() -> None:
    out, masks = outputs(5, labels=6), targets(5, absent=2)
    whole = ReferCriterion(points=None)(out, masks)
    parts = []
    for objects, labels in ((slice(0, 2), slice(0, 5)), (slice(2, 5), slice(5, 6))):
        part = {name: value[labels if name.startswith("label") else objects] for name, value in out.items()}
        parts.append(ReferCriterion(points=None)(part, masks[objects], num_objects=5, num_labels=6))
    for name in whole:
        total = sum(float(part[name].detach()) for part in parts)
        assert total == pytest.approx(float(whole[name].detach()), rel=1e-5)


def test_total_is_the_weighted_sum_without_the_iou() -> None:
    criterion = ReferCriterion(weight_iou=3.0, weight_language=0.25, points=None)
    losses = criterion(outputs(3), targets(3))
    assert list(losses) == ["loss_mask", "loss_dice", "loss_iou", "loss_object", "loss_language", "iou"]
    wanted = sum(w * float(losses[n].detach()) for n, w in zip(losses, (2.0, 0.5, 3.0, 1.0, 0.25, 0.0), strict=True))
    assert float(criterion.total(losses).detach()) == pytest.approx(wanted)
    names = ["loss_mask", "loss_dice", "loss_language", "iou"]
    assert list(ReferCriterion("sa2va", points=None)(outputs(3), targets(3))) == names


def test_iou_is_that_of_what_inference_shows() -> None:
    masks = targets(4, absent=2)
    out = outputs(4)
    with torch.no_grad():
        out["pred_masks"][:, 1] = torch.where(masks, 5.0, -5.0)
        out["pred_ious"][:] = torch.tensor([0.1, 0.9, 0.2])
        out["object_scores"][:] = torch.tensor([-1.0, 1.0, -1.0, 1.0])  # right and wrong, absent and there
    assert float(ReferCriterion("deixis", points=None)(out, masks)["iou"]) == 0.5
    assert float(ReferCriterion("sa2va", points=None)(out, masks)["iou"]) == 1.0


@pytest.mark.parametrize("masks", [targets(3), targets(5)])
def test_as_many_masks_as_objects(masks: Tensor) -> None:
    with pytest.raises(TrainingError, match=r"pred_masks .* for [35] target masks"):
        ReferCriterion()(outputs(4), masks)


def test_other_mismatches_are_told() -> None:
    out = outputs(2)
    with pytest.raises(TrainingError, match="grid of the losses"):
        ReferCriterion()(out, torch.zeros(2, SIZE, SIZE + 1, dtype=torch.bool))
    with pytest.raises(TrainingError, match="7 rows of logits for 6 labels"):
        ReferCriterion()(out | {"label_ids": out["label_ids"][:6]}, targets(2))


@pytest.mark.parametrize("wrong", [{"weight_dice": -1}, {"points": 0}, {"oversample": 0.5}, {"importance": 1.5}])
def test_impossible_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        ReferCriterion(**wrong)


def test_one_object_is_learnt() -> None:
    """Descent on the outputs themselves ends at the mask, its IoU and its presence."""
    out, masks = outputs(2), targets(2, absent=1)
    criterion = ReferCriterion(points=200)
    g = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([value for name, value in out.items() if name != "label_ids"], lr=0.2)
    for _ in range(150):
        optimiser.zero_grad()
        criterion.total(criterion(out, masks, generator=g)).backward()
        optimiser.step()
    losses = criterion(out, masks)
    assert float(losses["iou"]) == pytest.approx(1.0)
    assert float(losses["loss_object"].detach()) < 0.02
    assert np.isclose(float(out["pred_ious"].detach()[1].max()), 1.0, atol=0.25)
