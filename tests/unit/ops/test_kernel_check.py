"""A kernel that is wrong on a machine is found before it is used, once, and plain PyTorch takes its place."""

from __future__ import annotations

import json
import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from deixis.ops import deformable_attention, kernel_check
from deixis.ops.deformable_attention import default_implementation, kernels_fit, multi_scale_deformable_attention
from deixis.ops.kernel_check import forget_verdicts, kernel_difference, trusted, verdict_key


def reference(*arguments: Any, **named: Any) -> Tensor:
    return multi_scale_deformable_attention(*arguments, **named, implementation="reference")


def too_large(*arguments: Any, **named: Any) -> Tensor:
    return reference(*arguments, **named) * 1.01


def without_gradient_of_locations(value: Any, shapes: Any, locations: Any, *, attention_weights: Any) -> Tensor:
    return reference(value, shapes, locations.detach() + 0 * locations, attention_weights=attention_weights)


def not_a_number(*arguments: Any, **named: Any) -> Tensor:
    return reference(*arguments, **named) * float("nan")


@pytest.mark.parametrize("wrong", [too_large, without_gradient_of_locations, not_a_number])
def test_wrong_kernels_are_found(wrong: Any) -> None:
    assert kernel_difference(reference, reference, "cpu", torch.float32).fits(torch.float32)
    assert not kernel_difference(wrong, reference, "cpu", torch.float32).fits(torch.float32)


def test_the_kernels_of_this_machine_are_right() -> None:
    assert kernels_fit("numba", "cpu")
    assert kernels_fit("reference", "cpu")


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing was checked yet; returns the file of verdicts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernel_check, "_verdicts", {})
    return tmp_path / "deixis" / "kernels.json"


def again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the next process."""
    monkeypatch.setattr(kernel_check, "_verdicts", {})


def test_a_right_kernel_is_checked_once_and_silently(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert trusted("triton", lambda: not checks.append(1), lambda: "a GPU, version 1")
        again(monkeypatch)
        assert trusted("triton", lambda: not checks.append(1), lambda: "a GPU, version 1")
    assert len(checks) == 1
    again(monkeypatch)
    assert trusted("triton", lambda: not checks.append(1), lambda: "a GPU, version 2")
    assert len(checks) == 2
    assert json.loads(fresh.read_text()) == {"a GPU, version 1": True, "a GPU, version 2": True}


def test_a_wrong_kernel_gives_way_with_one_line(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> bool:
        return kernel_difference(too_large, reference, "cpu", torch.float32).fits(torch.float32)

    with pytest.warns(UserWarning, match="the triton kernel gives wrong results on this machine"):
        assert not trusted("triton", check, lambda: "key")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not trusted("triton", check, lambda: "key")
    again(monkeypatch)
    with pytest.warns(UserWarning, match="deixis doctor"):
        assert not trusted("triton", lambda: True, lambda: "key")  # as the file says


def test_a_kernel_that_does_not_compile_and_a_damaged_file(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not used in this process; a later one tries again, as memory may be free or a compiler installed then."""

    def check() -> bool:
        raise RuntimeError("ptxas fatal\nno compiler")

    fresh.parent.mkdir()
    fresh.write_text("[")
    message = r"the triton kernel cannot run on this machine \(ptxas fatal no compiler\), so plain PyTorch is used"
    with pytest.warns(UserWarning, match=message):
        assert not trusted("triton", check, lambda: "key")
    assert not trusted("triton", lambda: True, lambda: "key")
    assert fresh.read_text() == "["
    again(monkeypatch)
    assert trusted("triton", lambda: True, lambda: "key")
    assert json.loads(fresh.read_text()) == {"key": True}


def test_a_place_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert trusted("triton", lambda: True, lambda: "key")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    again(monkeypatch)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert trusted("triton", lambda: True, lambda: "key")


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_callers_modes_do_not_reach_the_check(fresh: Path, mode: Any) -> None:
    def check() -> bool:
        assert not torch.is_autocast_enabled("cpu")
        return kernel_difference(reference, reference, "cpu", torch.float32).fits(torch.float32)

    with mode():
        assert trusted("triton", check, lambda: "key")


def test_what_was_found_can_be_forgotten(fresh: Path) -> None:
    with pytest.warns(UserWarning, match="gives wrong results"):
        assert not trusted("triton", lambda: False, lambda: "key")
    forget_verdicts()
    assert not fresh.exists()
    assert trusted("triton", lambda: True, lambda: "key")
    forget_verdicts()
    forget_verdicts()  # nothing is there


@pytest.mark.parametrize("wrong", [False, True])
def test_a_stand_in_for_the_gpus_kernels(fresh: Path, monkeypatch: pytest.MonkeyPatch, wrong: bool) -> None:
    """By the whole way from the operator to the kernels' module, with the CPU's kernels in place of Triton's."""
    numba = import_module("deixis.ops.deformable_numba")

    def forward(value: Tensor, *others: Any) -> Tensor:  # Triton's read half precision as it is, Numba's do not
        return numba.forward(value.float(), *others).to(value.dtype)

    def backward(grad: Tensor, value: Tensor, *others: Any) -> Any:
        grad_value, grad_locations, grad_weights = numba.backward(grad.float(), value.float(), *others)
        return grad_value.to(value.dtype), grad_locations * (1.1 if wrong else 1), grad_weights

    monkeypatch.setattr(
        deformable_attention, "_kernels", lambda name: SimpleNamespace(forward=forward, backward=backward)
    )
    verdicts = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            verdicts.append(trusted("triton", lambda: kernels_fit("triton", "cpu"), lambda: "key"))
    assert verdicts == [not wrong] * 2
    assert ["gives wrong results" in str(one.message) for one in told] == [True] * wrong


def test_the_default_on_a_gpu_depends_on_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deformable_attention, "_HAS_TRITON", True)
    for right, expected in ((True, "triton"), (False, "reference")):
        monkeypatch.setattr(deformable_attention, "triton_is_right", lambda right=right: right)
        assert default_implementation("cuda") == expected


def test_the_key_changes_with_the_code(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("a")
    first = verdict_key(tmp_path / "kernel.py", "3.1", "a GPU")
    (tmp_path / "kernel.py").write_text("b")
    assert first.startswith("kernel.py ")
    assert verdict_key(tmp_path / "kernel.py", "3.1", "a GPU") != first
