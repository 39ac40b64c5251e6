"""A kernel that is wrong on a machine is found before it is used, once, and plain PyTorch takes its place."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deixis.ops import deformable_attention, kernel_check
from deixis.ops.deformable_attention import default_implementation, kernels_fit, multi_scale_deformable_attention
from deixis.ops.kernel_check import kernel_difference, trusted, verdict_key


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


def test_a_kernel_that_does_not_compile_and_a_damaged_file(fresh: Path) -> None:
    def check() -> bool:
        raise RuntimeError("ptxas fatal")

    fresh.parent.mkdir()
    fresh.write_text("[")
    with pytest.warns(UserWarning, match="plain PyTorch is used"):
        assert not trusted("triton", check, lambda: "key")
    assert json.loads(fresh.read_text()) == {"key": False}


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
