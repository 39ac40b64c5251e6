"""The inverse sigmoid of the box heads: the authors' formula and epsilons, where transformers and torch have others."""

from __future__ import annotations

import math

import pytest
import torch
from small_detectors import AUTHORS_EPSILONS, FLAVOURS, IDS, images, prompts, small_config

from deixis.models.grounding_dino import GroundingDino
from deixis.models.grounding_dino.heads import HEAD_EPSILONS, UPDATE_EPSILON, inverse_sigmoid, refine_boxes

EDGES = [0.0, 1e-6, 5e-4, 0.3, 0.9995, 1 - 1e-6, 1.0, -0.25, 1.5]
"""The last two lie outside the picture, as noised boxes of other tools do."""


def authors(x: float, epsilon: float) -> float:
    inside = min(max(x, 0.0), 1.0)
    return math.log(max(inside, epsilon) / max(1 - inside, epsilon))


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5])
@pytest.mark.parametrize("delta", [0.0, 0.7, -2.0])
def test_refined_boxes_follow_the_authors_formula(epsilon: float, delta: float) -> None:
    reference = torch.tensor(EDGES, dtype=torch.float64)[None, :, None].expand(1, -1, 4)
    got = refine_boxes(torch.full_like(reference, delta), reference, epsilon)
    wanted = [1 / (1 + math.exp(-delta - authors(x, epsilon))) for x in EDGES]
    torch.testing.assert_close(got[0, :, 0], torch.tensor(wanted, dtype=torch.float64), atol=1e-14, rtol=0)


def test_it_is_not_torchs_formula() -> None:
    """torch moves x to epsilon and keeps both parts: log(e / (1 - e)), and no gradient beyond it."""
    x = torch.tensor([0.0, 5e-4, 1.0, 1.0], dtype=torch.float64)
    assert ((inverse_sigmoid(x, 1e-3) - x.logit(eps=1e-3)).abs() > 4e-4).all()


@pytest.mark.parametrize(("x", "gradient"), [(5e-4, 1 / (1 - 5e-4)), (0.9995, 1 / 0.9995), (0.3, 1 / 0.21)])
def test_a_side_near_the_edge_keeps_a_gradient(x: float, gradient: float) -> None:
    side = torch.tensor([x, 0.5, 0.5, 0.5], dtype=torch.float64, requires_grad=True)
    inverse_sigmoid(side, 1e-3).sum().backward()
    assert side.grad is not None
    assert float(side.grad[0]) == pytest.approx(gradient, rel=1e-12)


def test_a_saturated_side_is_moved_by_its_head() -> None:
    """At 1 the sigmoid's slope is 1e-3 with the authors' epsilon, a hundredth of that with transformers'."""
    delta = torch.zeros(1, 1, 4, dtype=torch.float64, requires_grad=True)
    refine_boxes(delta, torch.ones(1, 1, 4, dtype=torch.float64), UPDATE_EPSILON).sum().backward()
    assert delta.grad is not None
    assert float(delta.grad.max()) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_each_flavour_has_its_authors_epsilons(flavour: str) -> None:
    """Box heads that move nothing, and more queries than cells: those left over start at the corner, 1."""
    update, head = AUTHORS_EPSILONS[flavour]
    assert (UPDATE_EPSILON, HEAD_EPSILONS[flavour]) == (update, head)
    model = GroundingDino(small_config(flavour, num_queries=200)).double().eval()
    inputs = images((150, 26), (60, 90)) | prompts(*IDS)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    with torch.no_grad():
        out = model(**inputs)
    left_over = (out["enc_outputs"]["pred_boxes"] == 1).all(-1)
    assert left_over.any()
    first, second = 1.0, 1 / (1 + update)  # where the two layers' references are
    for layer, place in ((out["aux_outputs"][0], first), (out, second)):
        wanted = 1 / (1 + math.exp(-authors(place, head)))
        assert layer["pred_boxes"][left_over].numpy() == pytest.approx(wanted, abs=1e-12)
