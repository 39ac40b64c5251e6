"""Multi-scale deformable attention against a loop written from the paper, at the edges first."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from deixis.ops.deformable_attention import multi_scale_deformable_attention
from deixis.ops.deformable_reference import reference_deformable_attention
from deixis.ops.parallel import run_tasks

ON_CPU = ["numba", "reference"]
SHAPES_HW = ((3, 7), (5, 2), (1, 1))  # 3 x 7 catches swapped height and width; a square cannot


def naive(value: Tensor, shapes_hw: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor) -> Tensor:
    """Deformable DETR's equation 3, one sample after the other, differentiable, in whatever type it gets."""
    batch, _, heads, channels = value.shape
    queries, points = weights.shape[1], weights.shape[4]
    rows = []
    for b in range(batch):
        for q in range(queries):
            for h in range(heads):
                total = value[b, 0, h] * 0
                first = 0
                for level, (height, width) in enumerate(shapes_hw):
                    for p in range(points):
                        x = locations[b, q, h, level, p, 0] * width - 0.5
                        y = locations[b, q, h, level, p, 1] * height - 0.5
                        column, row = math.floor(x.item()), math.floor(y.item())
                        for i in (row, row + 1):
                            for j in (column, column + 1):
                                if 0 <= i < height and 0 <= j < width:
                                    nearness = (x - column if j > column else j + 1 - x) * (
                                        y - row if i > row else i + 1 - y
                                    )
                                    feature = value[b, first + i * width + j, h]
                                    total = total + weights[b, q, h, level, p] * nearness * feature
                    first += height * width
                rows.append(total)
    return torch.stack(rows).view(batch, queries, heads * channels)


def problem(
    batch: int = 2,
    queries: int = 3,
    heads: int = 3,
    channels: int = 5,
    points: int = 2,
    shapes_hw: tuple[tuple[int, int], ...] = SHAPES_HW,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, locations from far outside to inside, and weights."""
    generator = torch.Generator().manual_seed(0)
    keys = sum(height * width for height, width in shapes_hw)
    value = torch.randn(batch, keys, heads, channels, generator=generator, dtype=dtype)
    locations = torch.rand(batch, queries, heads, len(shapes_hw), points, 2, generator=generator, dtype=dtype)
    weights = torch.randn(batch, queries, heads, len(shapes_hw), points, generator=generator, dtype=dtype)
    return value, locations * 2 - 0.5, weights


def outputs_and_gradients(function, value: Tensor, locations: Tensor, weights: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (value, locations, weights)]
    out = function(*leaves)
    direction = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return [out.detach(), *torch.autograd.grad(out, leaves, direction, materialize_grads=True)]


def attention_by(implementation: str, shapes_hw=SHAPES_HW):
    """A function of (value, locations, weights)."""

    def attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return multi_scale_deformable_attention(
            value, shapes_hw, locations, attention_weights=weights, implementation=implementation
        )

    return attend


def assert_like_naive(implementation: str, value: Tensor, locations: Tensor, weights: Tensor, shapes_hw=SHAPES_HW):
    ours = outputs_and_gradients(attention_by(implementation, shapes_hw), value, locations, weights)
    theirs = outputs_and_gradients(lambda v, x, w: naive(v, shapes_hw, x, w), value, locations, weights)
    for name, ours_one, theirs_one in zip(("output", "value", "locations", "weights"), ours, theirs, strict=True):
        torch.testing.assert_close(ours_one, theirs_one, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: name + text)


EMPTY = [{"batch": 0}, {"queries": 0}, {"heads": 0}, {"channels": 0}, {"points": 0}, {"shapes_hw": ()}]
"""Problems without a sample, or without an output."""


def assert_zeros(found: list[Tensor], value: Tensor, locations: Tensor, weights: Tensor) -> None:
    """The output and gradients of such a problem."""
    batch, _, heads, channels = value.shape
    shapes = [(batch, weights.shape[1], heads * channels), value.shape, locations.shape, weights.shape]
    assert [tuple(tensor.shape) for tensor in found] == [tuple(shape) for shape in shapes]
    assert not any(tensor.any() for tensor in found)


@pytest.mark.parametrize("implementation", ON_CPU)
class TestEqualsTheEquation:
    def test_inside_at_borders_and_outside(self, implementation: str) -> None:
        assert_like_naive(implementation, *problem())

    @pytest.mark.parametrize(
        "x_y",
        [(0.0, 0.0), (1.0, 1.0), (-1e-6, 1.0001), (0.02, 0.98), (-0.2, 0.5), (0.5, 1.3), (1e6, -1e6), (1e30, 0.5)],
    )
    def test_at_one_place(self, implementation: str, x_y: tuple[float, float]) -> None:
        value, locations, weights = problem(batch=1, queries=1, heads=2)
        assert_like_naive(implementation, value, torch.tensor(x_y, dtype=torch.float64).expand_as(locations), weights)

    @pytest.mark.parametrize("channels", [1, 3, 7, 8, 12, 31, 33])
    def test_any_channel_count(self, implementation: str, channels: int) -> None:
        assert_like_naive(implementation, *problem(batch=1, queries=2, heads=2, channels=channels))

    @pytest.mark.parametrize(("batch", "heads", "queries"), [(1, 1, 1), (1, 8, 2), (5, 1, 3), (1, 3, 40)])
    def test_any_split_among_threads(
        self, implementation: str, batch: int, heads: int, queries: int, monkeypatch
    ) -> None:
        if implementation == "numba":
            monkeypatch.setattr("deixis.ops.deformable_numba._threads_for", lambda work: 3)
        assert_like_naive(implementation, *problem(batch=batch, heads=heads, queries=queries))

    def test_gradients_agree_with_finite_differences(self, implementation: str) -> None:
        leaves = [tensor.requires_grad_() for tensor in problem(batch=1, queries=2, heads=2, channels=3)]
        assert torch.autograd.gradcheck(attention_by(implementation), leaves)

    def test_inputs_that_are_not_contiguous(self, implementation: str) -> None:
        value, locations, weights = problem()
        value = value.transpose(1, 2).contiguous().transpose(1, 2)
        locations = locations.flip(-1).contiguous().flip(-1).transpose(3, 4).contiguous().transpose(3, 4)
        weights = weights.expand(2, *weights.shape)[1]
        assert not value.is_contiguous()
        assert not locations.is_contiguous()
        assert_like_naive(implementation, value, locations, weights)

    @pytest.mark.parametrize("empty", EMPTY)
    def test_nothing_to_do(self, implementation: str, empty: dict) -> None:
        inputs = problem(**empty)
        function = attention_by(implementation, empty.get("shapes_hw", SHAPES_HW))
        assert_zeros(outputs_and_gradients(function, *inputs), *inputs)

    def test_half_precision_is_summed_in_single(self, implementation: str) -> None:
        value, locations, weights = (tensor.bfloat16() for tensor in problem(queries=20))
        out = multi_scale_deformable_attention(
            value, SHAPES_HW, locations, attention_weights=weights, implementation=implementation
        )
        exact = naive(value.double(), SHAPES_HW, locations.double(), weights.double())
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out, exact.bfloat16(), rtol=2**-7, atol=1e-6)

    def test_gradients_come_in_the_types_of_the_inputs(self, implementation: str) -> None:
        value, locations, weights = problem()
        results = outputs_and_gradients(
            attention_by(implementation), value.bfloat16(), locations.float(), weights.float()
        )
        assert [result.dtype for result in results[1:]] == [torch.bfloat16, torch.float32, torch.float32]

    @pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
    def test_broken_locations_are_not_hidden(self, implementation: str, broken: float) -> None:
        value, locations, weights = problem()
        locations[0, 1, 2, 0, 1, 0] = broken
        out = multi_scale_deformable_attention(
            value, SHAPES_HW, locations, attention_weights=weights, implementation=implementation
        )
        assert out[0, 1, 10:].isnan().all()
        assert not out[0, 1, :10].isnan().any()
        assert not out[1].isnan().any()

    def test_gradient_checkpointing(self, implementation: str) -> None:
        def attend(v: Tensor, x: Tensor, w: Tensor) -> Tensor:
            return multi_scale_deformable_attention(
                v * 2, SHAPES_HW, x, attention_weights=w, implementation=implementation
            )

        plain = outputs_and_gradients(attend, *problem())
        again = outputs_and_gradients(lambda *tensors: checkpoint(attend, *tensors, use_reentrant=False), *problem())
        for one, other in zip(plain, again, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)

    def test_frozen_features_still_give_the_other_gradients(self, implementation: str) -> None:
        value, locations, weights = problem()
        full = outputs_and_gradients(
            lambda v, x, w: multi_scale_deformable_attention(
                v, SHAPES_HW, x, attention_weights=w, implementation=implementation
            ),
            value,
            locations,
            weights,
        )
        locations.requires_grad_()
        weights.requires_grad_()
        out = multi_scale_deformable_attention(
            value, SHAPES_HW, locations, attention_weights=weights, implementation=implementation
        )
        out.backward(torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out))
        assert value.grad is None
        torch.testing.assert_close(locations.grad, full[2])
        torch.testing.assert_close(weights.grad, full[3])

    def test_several_threads_at_once(self, implementation: str) -> None:
        value, locations, weights = problem(batch=4, queries=200, heads=8, channels=16, points=4, dtype=torch.float32)
        expected = reference_deformable_attention(value, SHAPES_HW, locations, attention_weights=weights)
        found: list[Tensor] = []

        def attend() -> None:
            for _ in range(5):
                found.append(
                    multi_scale_deformable_attention(
                        value, SHAPES_HW, locations, attention_weights=weights, implementation=implementation
                    )
                )

        threads = [threading.Thread(target=attend) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 20
        for one in found:
            torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4)


def test_numba_equals_the_reference_on_a_real_size_in_single_precision() -> None:
    value, locations, weights = problem(2, 300, 8, 32, 4, ((24, 32), (12, 16), (6, 8), (3, 4)), torch.float32)
    shapes_hw = ((24, 32), (12, 16), (6, 8), (3, 4))
    ours = outputs_and_gradients(
        lambda v, x, w: multi_scale_deformable_attention(v, shapes_hw, x, attention_weights=w, implementation="numba"),
        value,
        locations,
        weights,
    )
    theirs = outputs_and_gradients(
        lambda v, x, w: reference_deformable_attention(v, shapes_hw, x, attention_weights=w), value, locations, weights
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


@pytest.mark.slow
def test_torch_compile_keeps_one_graph() -> None:
    # In a process of its own: the tests' shape checks, which users do not have, would break the graph.
    code = """
import torch
from deixis.ops.deformable_attention import multi_scale_deformable_attention

def attend(value, locations, weights):
    return multi_scale_deformable_attention(value * 2, ((2, 3),), locations, attention_weights=weights).relu()

def gradients(function):
    torch.manual_seed(0)
    leaves = [torch.rand(shape).requires_grad_() for shape in ((1, 6, 2, 4), (1, 3, 2, 1, 2, 2), (1, 3, 2, 1, 2))]
    return torch.autograd.grad(function(*leaves).square().sum(), leaves)

compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
torch.testing.assert_close(gradients(compiled), gradients(attend))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_operator_meets_pytorchs_own_checks() -> None:
    leaves = [tensor.requires_grad_() for tensor in problem(batch=1, queries=2, heads=2)]
    shapes = [side for shape_hw in SHAPES_HW for side in shape_hw]
    torch.library.opcheck(
        torch.ops.deixis.deformable_attention.default,
        (leaves[0], shapes, leaves[1], leaves[2], "numba"),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes_hw": ((3, 7), (5, 2), (0, 1))}, r"at least one cell, got .*\(0, 1\).*larger images or fewer levels"),
        ({"shapes_hw": ((3, 7), (5, 2), (1, 2))}, "have 33 cells, but value has 32 keys"),
        ({"shapes_hw": ((3, 7), (11, 1))}, "2 levels"),
        ({"implementation": "cuda"}, "no deformable attention called 'cuda'; choose from"),
    ],
)
def test_impossible_arguments_are_named(change: dict, message: str) -> None:
    value, locations, weights = problem()
    arguments = {"shapes_hw": SHAPES_HW, "implementation": None} | change
    with pytest.raises(ValueError, match=message):
        multi_scale_deformable_attention(
            value,
            arguments["shapes_hw"],
            locations,
            attention_weights=weights,
            implementation=arguments["implementation"],
        )


def test_importing_it_imports_neither_numba_nor_triton() -> None:
    code = (
        "import sys, deixis.ops.deformable_attention; "
        "sys.exit(any(name in sys.modules for name in ('numba', 'deixis.ops.deformable_triton')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    from deixis.ops import deformable_numba

    plain_njit = numba.njit

    def njit(**options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return plain_njit(**options)

    monkeypatch.setattr(numba, "njit", njit)
    assert deformable_numba._compiled()(lambda x: x + 1)(2) == 3


def test_tasks_run_once_each_and_errors_come_through() -> None:
    done: list[int] = []
    run_tasks(done.append, 50, threads=4)
    assert sorted(done) == list(range(50))

    def fail(index: int) -> None:
        if index == 3:
            raise ArithmeticError("task 3")

    for threads in (1, 4):
        with pytest.raises(ArithmeticError, match="task 3"):
            run_tasks(fail, 8, threads)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_after_an_error_no_task_begins(threads: int) -> None:
    begun: list[int] = []

    def task(index: int) -> None:
        begun.append(index)
        if index == 0:
            raise ArithmeticError("task 0")
        time.sleep(0.01)

    with pytest.raises(ArithmeticError, match="task 0"):
        run_tasks(task, 40, threads)
    assert len(begun) <= 3 * threads


def test_of_several_errors_the_first_is_raised() -> None:
    second_begun = threading.Event()

    def task(index: int) -> None:
        if index == 0:
            second_begun.wait(10)
            time.sleep(0.05)
        else:
            second_begun.set()
        raise ArithmeticError(f"task {index}")

    with pytest.raises(ArithmeticError, match="task 1"):
        run_tasks(task, 2, threads=2)


@pytest.fixture
def interpreted_triton(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed (it comes with CUDA builds of torch)")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, "deixis.ops.deformable_triton", raising=False)
    # Triton's own functions are interpreted only where it is imported for that; its compiled part is imported once.
    for name in [name for name in sys.modules if name.partition(".")[0] == "triton" and "._C" not in name]:
        monkeypatch.delitem(sys.modules, name)
    module = importlib.import_module("deixis.ops.deformable_triton")
    monkeypatch.delitem(sys.modules, "deixis.ops.deformable_triton")
    return module


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("channels", [1, 5, 8])
def test_triton_equals_the_equation(
    interpreted_triton: ModuleType, dtype: torch.dtype, tolerance: float, channels: int
) -> None:
    value, locations, weights = problem(batch=2, queries=2, heads=2, channels=channels)
    locations[0, 0] += 7  # far outside
    value = value.to(dtype)
    samples = [t if dtype == torch.float64 else t.float() for t in (locations, weights)]
    expected = outputs_and_gradients(
        lambda v, x, w: naive(v, SHAPES_HW, x, w), value.double(), *(sample.double() for sample in samples)
    )
    flat_shapes = tuple(side for shape_hw in SHAPES_HW for side in shape_hw)
    out = interpreted_triton.forward(value, flat_shapes, *samples)
    direction = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(out).to(dtype)
    found = [out, *interpreted_triton.backward(direction, value, flat_shapes, *samples)]
    assert [tensor.dtype for tensor in found] == [dtype, dtype, samples[0].dtype, samples[1].dtype]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * other.abs().max().item())


@pytest.mark.parametrize("empty", EMPTY)
def test_triton_with_nothing_to_do(interpreted_triton: ModuleType, empty: dict) -> None:
    value, locations, weights = problem(**empty)
    flat_shapes = tuple(side for shape_hw in empty.get("shapes_hw", SHAPES_HW) for side in shape_hw)
    out = interpreted_triton.forward(value, flat_shapes, locations, weights)
    gradients = interpreted_triton.backward(torch.ones_like(out), value, flat_shapes, locations, weights)
    assert_zeros([out, *gradients], value, locations, weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02)])
def test_triton_on_cuda_equals_the_reference(dtype: torch.dtype, tolerance: float) -> None:
    value, locations, weights = (t.to("cuda", torch.float32) for t in problem(2, 100, 8, 32, 4))
    value = value.to(dtype)
    ours = outputs_and_gradients(
        lambda v, x, w: multi_scale_deformable_attention(v, SHAPES_HW, x, attention_weights=w, implementation="triton"),
        value,
        locations,
        weights,
    )
    theirs = outputs_and_gradients(
        lambda v, x, w: multi_scale_deformable_attention(
            v, SHAPES_HW, x, attention_weights=w, implementation="reference"
        ),
        value,
        locations,
        weights,
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * other.abs().max().item())
