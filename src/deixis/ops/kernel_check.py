"""Kernels beside the plain PyTorch they replace: are their results right on this machine?

A kernel for GPUs is compiled on the user's machine, by a compiler and a driver that nobody tested it with. So before it
is used the first time it is run once on a small problem; what was found is kept in a file, by GPU and versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from deixis.atomic_files import write_atomic
from deixis.errors import DeixisError
from deixis.text import one_line

# bfloat16 rounds a number by up to 2^-8 of it, 0.004
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest difference, over the largest value of the reference."""
# no level is square: a kernel that exchanges height and width is noticed
_SHAPES_HW = ((9, 7), (5, 4))
_verdicts: dict[str, bool] = {}

Attention = Callable[..., Tensor]
"""`multi_scale_deformable_attention` without `implementation`."""


class KernelDifference(NamedTuple):
    """How far a kernel's results are from the reference, over the largest value of the reference.

    Attributes:
        forward: of the output.
        backward: of the worst of the three gradients.
    """

    forward: float
    backward: float

    def fits(self, dtype: torch.dtype) -> bool:
        """Whether both are within the tolerance of a precision; false for NaN."""
        return self.forward <= TOLERANCE[dtype] and self.backward <= TOLERANCE[dtype]


def kernel_difference(
    kernel: Attention, reference: Attention, device: str | torch.device, dtype: torch.dtype
) -> KernelDifference:
    """Run a kernel on a small problem with points outside of the image too, and on odd sizes.

    The reference gets the same values, on the CPU in float64: it is right there whatever the GPU does, and also where
    PyTorch is told to run deterministic algorithms only, which its own has none of on a GPU.
    """
    found = _results(kernel, dtype, device, dtype)
    wanted = _results(reference, dtype, "cpu", torch.float64)
    apart = [_apart(mine, theirs) for mine, theirs in zip(found, wanted, strict=True)]
    # NaN is neither larger nor smaller than a number, so plain `max` could pass over it.
    return KernelDifference(apart[0], max(apart[1:], key=lambda each: float("inf") if each != each else each))


def known_verdict(name: str) -> bool:
    """Whether a kernel may be used, without checking it: true until it was found wrong."""
    return _verdicts.get(name, True)


def trusted(name: str, check: Callable[[], bool], key: Callable[[], str]) -> bool:
    """Whether a kernel may be used here: from memory, from the file, or by running the check now.

    A warning says where it may not. A check that fails with an error counts as failed in this process alone: memory
    may have run out, a compiler may be installed later.

    Args:
        name: of the kernel, for the warning.
        check: runs it; takes a second.
        key: what the result depends on, as text: the GPU, the kernel's code, versions.
    """
    if name in _verdicts:
        return _verdicts[name]
    path = _verdict_file()
    stored, place = _stored(path), key()
    verdict, fault = stored.get(place), "gives wrong results on this machine"
    # not in the file, or something else was written there
    if not isinstance(verdict, bool):
        try:
            verdict = _in_its_own_thread(check)
        except Exception as error:  # a compiler, a driver or the kernel: whatever it is, the reference works
            verdict, fault = False, f"cannot run on this machine ({one_line(error, 200)})"
        else:
            _store(path, {**stored, place: verdict})
    _verdicts[name] = verdict
    if not verdict:
        warnings.warn(
            f"the {name} kernel {fault}, so plain PyTorch is used, which is slower; deixis doctor shows more",
            stacklevel=2,
        )
    return verdict


def forget_verdicts() -> None:
    """Check every kernel again at its next use: a driver or a compiler may have changed since."""
    _verdicts.clear()
    with suppress(OSError):
        path = _verdict_file()
        if path is not None:
            path.unlink()


def _in_its_own_thread(check: Callable[[], bool]) -> bool:
    """Gradient, inference and autocast modes and default devices are set per thread; a new one has none of them."""
    # the current GPU is set per thread too: a new one has the first
    gpu = torch.cuda.current_device() if torch.cuda.is_available() else None

    def run() -> bool:
        if gpu is not None:
            torch.cuda.set_device(gpu)
        return check()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def verdict_key(source: Path, *versions: str) -> str:
    """The code of a kernel and what else its results depend on, in a line."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    return " ".join([source.name, digest, *versions])


def _results(
    attention: Attention, rounded: torch.dtype, device: str | torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """The output and the gradients of values, locations and weights, in float64 on the CPU.

    The inputs are rounded to the first precision and computed with in the second.
    """
    generator = torch.Generator().manual_seed(0)
    keys, levels = sum(height * width for height, width in _SHAPES_HW), len(_SHAPES_HW)
    # [images, keys, heads, channels]; 20 is no power of 2, so a kernel's masked lanes are tested
    value = torch.randn(2, keys, 3, 20, generator=generator)
    # [images, queries, heads, levels, points, xy], from -0.15 to 1.15: some lie outside
    locations = torch.rand(2, 11, 3, levels, 4, 2, generator=generator) * 1.3 - 0.15
    weights = torch.rand(2, 11, 3, levels, 4, generator=generator)
    grad = torch.randn(2, 11, 60, generator=generator).to(rounded).to(device, dtype)
    inputs = [tensor.to(rounded).to(device, dtype).requires_grad_() for tensor in (value, locations, weights)]
    with torch.enable_grad():
        out = attention(inputs[0], _SHAPES_HW, inputs[1], attention_weights=inputs[2])
        grads = torch.autograd.grad(out, inputs, grad)
    return [tensor.detach().double().cpu() for tensor in (out, *grads)]


def _apart(mine: Tensor, theirs: Tensor) -> float:
    # over the largest value: single values near 0 have no meaningful relative error
    return float((mine - theirs).abs().max() / theirs.abs().max())


def _verdict_file() -> Path | None:
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        # the XDG base directory specification's place for what can be made again
        return (Path(cache) if cache else Path.home() / ".cache") / "deixis" / "kernels.json"
    except RuntimeError:  # a user without a home
        return None


def _stored(path: Path | None) -> dict[str, object]:
    try:
        # a damaged file is as good as none: the checks are run again
        values = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _store(path: Path | None, verdicts: dict[str, object]) -> None:
    """Nothing where there is no place for it: the next process checks again."""
    with suppress(DeixisError):
        if path is not None:
            write_atomic(path, json.dumps(verdicts, indent=2) + "\n")
