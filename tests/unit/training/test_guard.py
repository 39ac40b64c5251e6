"""The guard against NaN and inf."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from deixis.errors import TrainingError
from deixis.training.checkpoint import Progress
from deixis.training.guard import (
    WATCHED_STEPS,
    GradientWatch,
    bad_samples,
    is_finite,
    non_finite_names,
    non_finite_weights,
    parameters_without_gradient,
    raise_if_unrecoverable,
)

BAD = {"loss": math.nan, "grad_norm": math.inf, "loss_ce": 1.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_any_non_finite_figure_stops_a_step(value):
    assert not is_finite({"loss": 1.0, "grad_norm": value})
    assert is_finite({"loss": 1.0, "grad_norm": 0.0})
    assert is_finite({})


def test_non_finite_figures_are_named():
    assert non_finite_names(BAD) == ["loss", "grad_norm"]


def test_one_bad_step_is_no_reason_to_stop():
    raise_if_unrecoverable(nn.Linear(1, 1), Progress(), 5, figures=BAD, samples=["a.json: image 3"])


def test_too_many_in_a_row_stop_the_run_and_name_the_samples():
    progress = Progress(step=9)
    for _ in range(2):
        raise_if_unrecoverable(nn.Linear(1, 1), progress, 2, figures=BAD, samples=[])
        progress.count_step(updated=False)
    with pytest.raises(TrainingError, match=r"step 11: non-finite loss, grad_norm on a.json: image 3"):
        raise_if_unrecoverable(nn.Linear(1, 1), progress, 2, figures=BAD, samples=["a.json: image 3"])


def test_a_good_step_resets_the_row_but_not_the_count():
    progress = Progress()
    progress.count_step(updated=False)
    progress.count_step(updated=True)
    assert (progress.step, progress.updates, progress.skipped, progress.skipped_in_a_row) == (2, 1, 1, 0)


def test_skipped_steps_are_left_out_of_the_epochs_mean_loss():
    progress = Progress()
    for _ in range(4):
        progress.count_step(updated=True, loss=8.0)
    assert not progress.end_epoch()
    progress.step_in_epoch = 0
    for loss in (8.0, math.nan, 8.0, math.nan):
        progress.count_step(updated=not math.isnan(loss), loss=loss)
    progress.end_epoch()
    assert (progress.lowest_loss, progress.level_epochs) == (8.0, 1), "the loss has not fallen"


def test_an_epoch_of_skipped_steps_alone_does_not_count():
    progress = Progress(lowest_loss=8.0)
    progress.count_step(updated=False, loss=math.nan)
    progress.end_epoch()
    assert (progress.lowest_loss, progress.level_epochs) == (8.0, 0)


def test_a_broken_weight_stops_the_run_at_once():
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    assert non_finite_weights(model) == ["weight"]
    with pytest.raises(TrainingError, match="1 weights are NaN or inf themselves, the first is weight"):
        raise_if_unrecoverable(model, Progress(), 5, figures=BAD, samples=[])


def test_samples_that_are_bad_alone_are_named():
    model = nn.Linear(1, 1, bias=False)
    targets = [SimpleNamespace(source=source, image_id=image) for image, source in enumerate(["a", "b", ""])]
    factors = torch.tensor([1.0, math.nan, math.inf])

    def loss_alone(batch, index):
        return (model.weight * factors[index]).sum()

    assert bad_samples(model, [SimpleNamespace(targets=targets)], loss_alone) == ["b", "image 2"]


def test_a_gradient_can_be_bad_where_the_loss_is_not():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    batch = SimpleNamespace(targets=[SimpleNamespace(source="a", image_id=0)])
    assert bad_samples(model, [batch], lambda batch, index: model.weight.abs().sqrt().sum()) == ["a"]


def test_integer_buffers_are_not_weights():
    assert non_finite_weights(nn.BatchNorm1d(2)) == []


def test_parameters_out_of_the_graph_are_found():
    model = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    model[1].weight.requires_grad_(False)
    model[0](torch.ones(1, 1)).sum().backward()
    assert parameters_without_gradient(model) == ["1.bias"]


class TestGradientWatch:
    """A part that should train and gets exactly nothing is an alarm; what is zero by right is none."""

    @staticmethod
    def watched(**parts: list[torch.Tensor | None]) -> tuple[GradientWatch, dict[str, list[nn.Parameter]]]:
        weights = {name: [nn.Parameter(torch.zeros(2)) for _ in gradients] for name, gradients in parts.items()}
        for name, gradients in parts.items():
            for weight, gradient in zip(weights[name], gradients, strict=True):
                weight.grad = gradient
        groups = [{"name": f"{name}/decay", "params": found} for name, found in weights.items()]
        return GradientWatch(torch.optim.SGD(groups, lr=0.1)), weights

    def test_a_part_of_zeros_is_named_after_the_first_steps(self):
        watch, _ = self.watched(heads=[torch.ones(2)], decoder=[torch.zeros(2), None])
        for _ in range(WATCHED_STEPS - 1):
            watch.check(())
        with pytest.raises(TrainingError, match=r"decoder received no gradient in 10 steps .*exactly 0"):
            watch.check(())

    def test_zeros_everywhere_are_the_weights_of_the_losses(self):
        watch, _ = self.watched(heads=[torch.zeros(2)], decoder=[None])
        watch.check(())
        with pytest.raises(
            TrainingError, match=r"no part received a gradient.*every loss has weight 0 \(the --weight-"
        ):
            watch.finish()

    def test_one_gradient_in_a_part_is_enough(self):
        """An adapter's A has none in the first step, as its B is zero."""
        watch, _ = self.watched(encoder=[torch.zeros(2), torch.tensor([0.0, 1e-30])])
        watch.check(())
        watch.finish()

    def test_a_part_that_learns_later_is_no_alarm(self):
        watch, weights = self.watched(decoder=[torch.zeros(2)])
        for _ in range(WATCHED_STEPS - 1):
            watch.check(())
        weights["decoder"][0].grad = torch.ones(2)
        watch.check(())
        weights["decoder"][0].grad = torch.zeros(2)
        for _ in range(2 * WATCHED_STEPS):
            watch.check(())
        watch.finish()

    def test_steps_that_teach_a_part_nothing_by_right_do_not_count(self):
        watch, _ = self.watched(mask_decoder=[torch.zeros(2)], language=[torch.ones(2)])
        for _ in range(3 * WATCHED_STEPS):
            watch.check(("mask_decoder",))
        watch.finish()
