"""The training loop: fetch, forward, loss, backward, step, log, evaluate, save.

It is independent of the model: a `Task` provides batches, losses and evaluation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from deixis.errors import Terminated, TrainingError
from deixis.text import one_line
from deixis.training import guard
from deixis.training.checkpoint import Progress, save_progress
from deixis.training.metrics.steps import step_record, waiting
from deixis.training.operations import counted
from deixis.training.optim import set_learning_rate, start_late_groups
from deixis.training.processes import gather_lists, mean_figures, of_each_process, seed_step
from deixis.training.run import Run, Task, save
from deixis.training.sharding import gathered, whole
from deixis.training.signals import worker_losses_deferred


def train(task: Task, run: Run) -> Progress:
    """Train to the end, from wherever `run.progress` stands.

    Raises:
        TrainingError: see `guard.raise_if_unrecoverable`; or a trainable part gets no gradient, a checkpoint cannot be
            written, or SIGTERM ended the loading workers in the middle of an update.
        Terminated: SIGTERM was received; `checkpoints/last` has been saved.
    """
    last_step = run.settings.total_steps(task.steps_per_epoch)
    try:
        while not run.progress.finished:
            train_epoch(task, run, last_step)
            finish_epoch(task, run, last_step)
    except RuntimeError as error:
        with worker_losses_deferred(report=False):  # the next worker's end would raise in here
            ending = _ending(task, run, error)
        if ending is error:
            raise
        raise ending from (None if isinstance(ending, Terminated) else error)
    return run.progress


def _ending(task: Task, run: Run, error: RuntimeError) -> BaseException:
    """What a run ends with after an error in the middle of training; saves it where its state is consistent.

    SIGTERM to a process group also ends the loading workers, which torch reports as a RuntimeError; it may reach them
    before it reaches this process.
    """
    if _is_lost_worker(error) and not run.stop.requested:
        time.sleep(0.2)  # SIGTERM may still be on its way to this process
    if not run.stop.requested:
        return error if run.mid_update or not _is_lost_worker(error) else _without_worker(task, run, error)
    if run.mid_update:
        return TrainingError(
            f"step {run.progress.step}: SIGTERM was received while the weights were changing ({error}); they are "
            "not saved, the last checkpoint is unchanged: continue from it with --resume"
        )
    save(task, run, wait=False)  # other processes may have ended already
    return Terminated()


def _is_lost_worker(error: RuntimeError) -> bool:
    return "DataLoader worker" in str(error)


def _without_worker(task: Task, run: Run, error: RuntimeError) -> TrainingError:
    """The error for a loading worker that was killed between two steps; saves the run first."""
    save(task, run, wait=False)
    saved = "saved" if run.sharding is None else "the one before"
    return TrainingError(
        f"step {run.progress.step}: a data loading worker died, often because memory ran out ({one_line(error)}); "
        f"checkpoints/last is {saved}: use --resume with fewer --num-workers or a smaller --batch-size"
    )


def train_epoch(task: Task, run: Run, last_step: int) -> None:
    """Train the rest of an epoch; save where it is due, and where SIGTERM ends the run."""
    progress, settings = run.progress, run.settings
    # evaluation and the measuring of a baseline leave evaluation mode behind
    task.model.train()
    if progress.step >= last_step:
        return
    started = asked_for_data = time.perf_counter()
    for group in task.groups(progress.epoch, progress.step_in_epoch):
        loss, stop = train_step(task, run, group, waited=time.perf_counter() - asked_for_data, started=started)
        started = time.perf_counter()  # the next step's time includes waiting for its data

        run.bar(progress.step, note=f"epoch {progress.epoch + 1}/{settings.epochs}  loss {loss:.3f}")
        due = settings.save_interval > 0 and progress.step % settings.save_interval == 0
        if stop or due:
            save(task, run)
        if stop:
            raise Terminated
        asked_for_data = time.perf_counter()
        if progress.step >= last_step:
            return


def train_step(task: Task, run: Run, group: Sequence[Any], *, waited: float, started: float) -> tuple[float, bool]:
    """Sum the gradients of a step's batches, clip the sum, fetch all figures from the device in one synchronisation,
    and change the weights if every figure is finite.

    Args:
        waited: seconds that this process waited for the batches.
        started: when the step began, by `time.perf_counter`.

    Returns:
        (mean loss, whether SIGTERM has reached any process).
    """
    progress, settings, accelerator = run.progress, run.settings, run.accelerator
    seed_step(settings.seed, progress.step, accelerator.process_index)
    # By updates and not by steps: a skipped step takes nothing from the warm-up.
    rates = set_learning_rate(run.optimizer, run.schedule.factor(progress.updates), progress.updates)
    # one divisor for all batches and processes of the step, see `accumulate_gradients`
    normaliser = task.normaliser(group)
    with counted(task.model, wanted=progress.step == 0) as operations:
        losses = accumulate_gradients(task, accelerator, group, normaliser=normaliser)
    if progress.updates == 0:  # once: the same parameters get gradients in every step
        require_gradients(accelerator.unwrap_model(task.model))
    figures, stop, waits = clipped_figures(task, run, losses, waited)

    # the figures are means over processes, so all of them decide alike
    finite = guard.is_finite(figures)
    if finite:
        run.watch.check(task.unsupervised_parts(group))
    with run.updating():
        if finite:
            run.optimizer.step()
            if run.average:
                run.average.update()
        if not finite:
            name_and_log_skip(task, run, group, normaliser=normaliser, figures=figures)
        elif progress.step % settings.log_interval == 0:
            record = step_record(run, figures, rates, group=group, started=started)
            if operations:
                record["gflop_per_image"] = round(operations.total / 1e9 / sum(map(len, group)), 6)
            run.logs.log("step", progress.step, record | waiting(waits, time.perf_counter() - started))
        progress.count_step(updated=finite, loss=figures["loss"])
    run.optimizer.zero_grad(set_to_none=True)
    return figures["loss"], stop


def clipped_figures(
    task: Task, run: Run, losses: Mapping[str, Tensor], waited: float
) -> tuple[dict[str, float], bool, list[float]]:
    """Clip the gradients; fetch losses and norm, whether to stop, and how long each process waited for its data."""
    accelerator = run.accelerator
    # The norm before clipping. If it is NaN, so are all gradients now: the step is skipped.
    norm = accelerator.clip_grad_norm_(task.model.parameters(), run.settings.clip_norm)
    assert norm is not None
    norm = gathered(norm)  # of a model in shards it is a DTensor
    # SIGTERM may reach one process only: averaged like the losses, its flag stops all of them in the same step
    asked = norm.new_tensor([float(run.stop.requested), *of_each_process(accelerator, waited)])
    own = dict(zip(("stop", *range(accelerator.num_processes)), asked.unbind(), strict=True))
    figures = mean_figures(accelerator, {**losses, "grad_norm": norm, **{f"own {key}": v for key, v in own.items()}})
    stop, *waits = (figures.pop(f"own {key}") for key in own)
    return figures, stop > 0, waits


def accumulate_gradients(
    task: Task, accelerator: Accelerator, group: Sequence[Any], *, normaliser: Tensor
) -> dict[str, Tensor]:
    """Forward, loss and backward for each batch of a step; returns the summed losses, detached.

    Every batch's loss is divided by the normaliser of the whole step, so the summed gradient equals that of one large
    batch, without dividing by the number of batches. Processes exchange gradients only with the last batch.
    """
    sums: dict[str, Tensor] = {}
    for index, batch in enumerate(group):
        if index + 1 < len(group):
            with accelerator.no_sync(task.model):
                total, losses = task.losses(batch, normaliser)
                accelerator.backward(total)
        else:
            total, losses = task.losses(batch, normaliser)
            accelerator.backward(total)
        for name, value in {"loss": total, **losses}.items():
            # losses are sums over the step's normaliser and add up; other figures, such as class_error, are means
            share = value.detach() if name.startswith("loss") else value.detach() / len(group)
            sums[name] = sums[name] + share if name in sums else share
    return sums


def name_and_log_skip(
    task: Task, run: Run, group: Sequence[Any], *, normaliser: Tensor, figures: Mapping[str, float]
) -> None:
    """Log a skipped step with the samples that caused it; stop the run if skipping cannot help."""
    progress = run.progress
    run.optimizer.zero_grad(set_to_none=True)
    samples = gather_lists(run.accelerator, task.non_finite_samples(group, normaliser))
    names = guard.non_finite_names(figures)
    record = {"epoch": progress.epoch, "non_finite": names, "samples": samples, "skipped": progress.skipped + 1}
    run.logs.log("skip", progress.step, record)
    run.logs.sync()
    run.bar.console.print(f"step {progress.step} skipped: non-finite {', '.join(names)}; samples: {', '.join(samples)}")
    model = run.accelerator.unwrap_model(task.model)
    guard.raise_if_unrecoverable(model, progress, run.settings.max_skipped, figures=figures, samples=samples)


def finish_epoch(task: Task, run: Run, last_step: int) -> None:
    """Save, evaluate, keep the best weights, and decide whether to continue.

    The weights are saved before the evaluation, so a run that crashes in it loses no epoch.
    """
    progress, settings = run.progress, run.settings
    if progress.end_epoch() and start_late_groups(run.optimizer, progress.updates):
        run.bar.console.print(f"epoch {progress.epoch + 1}: the loss has stopped falling; all parts train from now on")
    at_end = progress.step >= last_step or progress.epoch + 1 == settings.stop_after_epochs
    if at_end:
        run.watch.finish()
    save(task, run)
    if at_end or (progress.epoch + 1) % settings.evaluate_every == 0:
        started = time.perf_counter()
        metrics, better = evaluate_and_keep(task, run)
        seconds = time.perf_counter() - started
        record = {"epoch": progress.epoch, "best": better, **metrics, "seconds": seconds}
        run.logs.log("evaluation", progress.step, record)
        run.bar.console.print(
            f"epoch {progress.epoch + 1}/{settings.epochs}  step {progress.step}  "
            f"{shown_metrics(task, metrics)}{standing(task, metrics, better)}"
        )
    # early stopping; a patience of 0 disables it
    patient = settings.patience == 0 or progress.epochs_without_gain < settings.patience
    progress.finished = at_end or not patient
    progress.epoch += 1
    progress.step_in_epoch = 0
    if run.accelerator.is_main_process:
        progress.log_bytes = run.logs.sync()
        save_progress(run.folder / "checkpoints" / "last", progress, run.identity)
    run.accelerator.wait_for_everyone()


def evaluate_and_keep(task: Task, run: Run) -> tuple[Mapping[str, Any], bool]:
    """Metrics of the weights (the averaged ones, if there are any), and whether they are the best so far.

    The best are written to `checkpoints/best`; while no evaluation has a score, the latest are. SIGTERM during the
    evaluation raises `Terminated`; nothing has changed then.
    """
    progress = run.progress
    with run.average.applied() if run.average else nullcontext(), whole(run.sharding):
        task.model.eval()
        with run.stop.interrupts(), run.bar.labelled("evaluating"):
            metrics = task.evaluate()
        # the first metric that is shown decides which weights are kept; the best is -1 before the first score
        score = figure(metrics, task.shown[0])
        better = progress.best_score < 0 if math.isnan(score) else score > progress.best_score
        if better and run.accelerator.is_main_process:
            task.save_model(run.folder / "checkpoints" / "best")
    progress.epochs_without_gain = 0 if better else progress.epochs_without_gain + 1
    if better:
        progress.best_score, progress.best_epoch = (-1.0 if math.isnan(score) else score), progress.epoch
    return metrics, better


def figure(metrics: Mapping[str, Any], name: str) -> float:
    """A metric; NaN where the data has nothing to measure it on, as for cIoU where all masks are empty."""
    return float(metrics.get(name, math.nan))


def shown_metrics(task: Task, metrics: Mapping[str, Any]) -> str:
    """The metrics to print, on one line."""
    missing = "cannot be measured on this data"
    found = ((name, figure(metrics, name)) for name in task.shown)
    return "  ".join(f"{name} {missing if math.isnan(value) else f'{value:.4f}'}" for name, value in found)


def standing(task: Task, metrics: Mapping[str, Any], better: bool) -> str:
    """Whether an epoch's weights are kept, and why, to print after its metrics."""
    missing = math.isnan(figure(metrics, task.shown[0]))
    kept = f"kept as the latest: no {task.shown[0]} to choose by" if missing else "best so far"
    return f"  {kept}" if better else ""


def measure_baseline(task: Task, run: Run) -> None:
    """Evaluate the weights that training starts from."""
    task.model.eval()
    with run.stop.interrupts(), run.bar.labelled("measuring before training"):
        metrics = task.evaluate()
    run.logs.log("baseline", 0, {"epoch": 0, **metrics})
    run.logs.sync()
    run.bar.console.print(f"before training  {shown_metrics(task, metrics)}")


def require_gradients(model: nn.Module) -> None:
    """Raises TrainingError if a trainable parameter receives no gradient."""
    missed = guard.parameters_without_gradient(model)
    if missed:
        raise TrainingError(
            f"{len(missed)} trainable parameters receive no gradient, the first is {missed[0]}; freeze them"
        )
