"""Classes asked for of which an image may show more than is annotated: no query is taught that they are absent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from deixis.batch_records import Target
from deixis.losses import detection
from deixis.losses.detection import build_criterion

QUERIES, TOKENS = 5, 6  # [CLS] cat . dog . [SEP]
POSITIVE_MAP = torch.tensor([[0, 1.0, 0, 0, 0, 0], [0, 0, 0, 1.0, 0, 0]])


def target(*unjudged: int) -> Target:
    """One dog."""
    return Target(
        torch.tensor([[0.5, 0.5, 0.2, 0.4]]), torch.tensor([1]), POSITIVE_MAP, (8, 8), (8, 8), 0, "", unjudged
    )


def outputs(seed: int = 0) -> dict[str, Tensor]:
    """Query 0 is on the dog."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(2, QUERIES, 4, generator=generator) * 0.1 + 0.05
    boxes[:, 0] = torch.tensor([0.5, 0.5, 0.2, 0.4])
    return {
        "pred_logits": torch.randn(2, QUERIES, TOKENS, generator=generator).requires_grad_(),
        "pred_boxes": boxes.requires_grad_(),
        "text_token_mask": torch.ones(2, TOKENS, dtype=torch.bool),
    }


def gradient(*targets: Target) -> tuple[float, Tensor]:
    found = outputs()
    criterion = build_criterion("grounding_dino", decoder_layers=1)
    loss = criterion.total(criterion(found, targets))
    loss.backward()
    grad = found["pred_logits"].grad
    assert grad is not None
    return float(loss.detach()), grad


def check(grad: Tensor, everything: Tensor) -> None:
    """Of the second image the dog is not exhaustive; everything is the gradient with both judged."""
    assert (grad[1, 1:, 3] == 0).all(), "an unmatched query may be on another dog"
    keep = torch.ones_like(grad, dtype=torch.bool)
    keep[1, 1:, 3] = False
    torch.testing.assert_close(grad[keep], everything[keep])
    assert (grad[keep] != 0).all()


def test_unmatched_queries_get_no_gradient_on_the_tokens_of_an_unjudged_class() -> None:
    loss, grad = gradient(target(), target(1))
    whole, everything = gradient(target(), target())
    check(grad, everything)
    assert loss < whole


def test_the_faulty_form_that_calls_them_absent_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "without_unjudged", lambda logits, positive, unjudged: logits)
    with pytest.raises(AssertionError, match="another dog"):
        check(gradient(target(), target(1))[1], gradient(target(), target())[1])


def test_a_query_on_another_object_is_still_a_negative() -> None:
    """Query 0 is on the dog; that it is no cat is right, whatever is known of cats."""
    _, grad = gradient(target(), target(0))
    assert grad[1, 0, 1] != 0
    assert (grad[1, 1:, 1] == 0).all()


def test_an_image_without_objects_and_without_judgement_teaches_delimiters_alone() -> None:
    nothing = replace(target(0, 1), boxes_cxcywh_norm=torch.zeros(0, 4), class_ids=torch.zeros(0, dtype=torch.int64))
    _, grad = gradient(nothing, target())
    assert (grad[0][:, [1, 3]] == 0).all()
    assert (grad[0][:, [0, 2, 4, 5]] != 0).all()


def test_objectness_is_not_taught_to_be_absent_either() -> None:
    criterion = build_criterion("grounding_dino", encoder_loss="objectness", decoder_layers=1)
    found = outputs() | {"enc_outputs": outputs(1)}
    criterion(found, [target(), target(0)])["loss_ce_enc"].backward()
    grad = found["enc_outputs"]["pred_logits"].grad
    assert (grad[1, 1:] == 0).all()
    assert grad[1, 0].any()
    assert grad[0, 1:].any()
