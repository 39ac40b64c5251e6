"""The checks that tests put on deixis's functions reject what they should, in the first calls of each test."""

import pytest
import shape_checks
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from deixis.geometry.boxes import box_area


def test_a_wrong_shape_is_rejected():
    with pytest.raises(TypeCheckError):
        box_area(torch.zeros(2, 3))


def test_a_wrong_shape_inside_of_deixis_is_rejected(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "clamp", lambda *_, **__: torch.ones(5, 2))
    with pytest.raises(TypeCheckError):
        box_area(torch.zeros(2, 4))


def test_the_first_calls_of_every_test_are_checked():
    def rows(values: Float[Tensor, "n 4"]) -> Float[Tensor, "n"]:
        return values.sum(dim=-1)

    function = shape_checks.limited(rows, lambda function: jaxtyped(function, typechecker=shape_checks.typechecked))
    for _ in range(shape_checks.CHECKED_CALLS - 1):
        function(torch.zeros(2, 4))
    with pytest.raises(TypeCheckError):
        function(torch.zeros(2, 3))
    assert len(function(torch.zeros(2, 3))) == 2
    shape_checks.next_test()
    with pytest.raises(TypeCheckError):
        function(torch.zeros(2, 3))
