"""Groups of options that both trainers share.

A trainer's options are one flat dataclass made of groups: `DetectTrainOptions(epochs=3)` sets a field of `Loop`, the
flag is `--epochs`, the YAML key `epochs`. Its functions are handed the group that they need: `options.group(Loop)`.
The docstring of a group is its title in `--help`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.checks import RUNS, check_name, require
from deixis.options.marks import RARE, Also, AtLeast0, AtLeast1, NotNegative, Positive, Share, ShareBelow1
from deixis.options.types import Options


@dataclass(frozen=True)
class Run(Options):
    """The run: where it writes, how it starts, what it reports"""

    output: Path = RUNS
    """Folder that holds the runs; on several machines, one that all of them share. Without --experiment-name, the
    folder of this run."""
    experiment_name: str = ""
    """Name of this run: its folder inside --output. Without either: runs/detector or runs/segmenter."""
    resume: bool = False
    """Resume from checkpoints/last of this run; an error if there is none."""
    auto_resume: Annotated[bool, RARE] = False
    """Resume from checkpoints/last if there is one, start a new run otherwise."""
    overwrite: bool = False
    """Move an earlier run of the same name aside and start a new one."""
    dry_run: bool = False
    """Read all data, print the plan, train nothing."""
    seed: AtLeast0 = 0
    """Random seed; which images are held out does not depend on it."""
    seeds: AtLeast1 = 1
    """Repeat the run with this many seeds, starting at --seed, each in its own folder; report mean and spread."""
    baseline: Annotated[bool, RARE] = True
    """Measure the model before training, with the same evaluation."""
    report: bool = True
    """Write report.html at the end."""
    report_images: Annotated[AtLeast0, RARE] = 8
    """Images drawn in the report, before and after training."""
    log_with: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow", "none"], ...], RARE] = ("tensorboard",)
    """Where metrics go besides metrics.jsonl; wandb and mlflow also get the options."""

    default_name = "run"

    @property
    def folder(self) -> Path:
        """Where the run writes: OUTPUT/NAME, OUTPUT itself without a name, or a folder of `runs` without both."""
        if self.experiment_name:
            return self.output / self.experiment_name
        return self.output if self.output != RUNS else RUNS / self.default_name

    @property
    def log_services(self) -> tuple[str, ...]:
        """The services of --log-with, each once."""
        return tuple(dict.fromkeys(name for name in self.log_with if name != "none"))

    def check_run(self) -> None:
        """Raises OptionError for an invalid name, ways to start that exclude each other, or a missing package."""
        check_name(self.experiment_name)
        if self.resume + self.auto_resume + self.overwrite > 1:
            raise OptionError("--resume, --auto-resume and --overwrite exclude each other; give one of them")
        alone = bool(self.log_with) and ("none" not in self.log_with or not self.log_services)
        require(alone, "log_with", self.log_with, "'none' alone, or one or more of tensorboard, wandb, mlflow")
        for name in self.log_services:
            if find_spec(name) is None:
                raise OptionError(f"--log-with {name}: the package is not installed; pip install {name}")


@dataclass(frozen=True)
class Loop(Options):
    """The loop: how long it trains, how often it evaluates and saves"""

    epochs: AtLeast1 | None = None
    """Passes over the training data; the recipe's own number if not given."""
    max_steps: AtLeast1 | None = None
    """Stop after this many optimiser steps, whatever --epochs says."""
    stop_after_epochs: Annotated[AtLeast1 | None, RARE] = None
    """Stop after this many epochs, with the learning rates of a run of --epochs."""
    early_stopping_patience: AtLeast0 = 0
    """Stop after this many evaluations in a row without a better validation score; 0 disables."""
    batch_size: AtLeast1 = 4
    """Images per step on each process, before accumulation."""
    gradient_accumulation_steps: AtLeast1 = 1
    """Batches summed into one optimiser step; equal to one batch of them all."""
    evaluate_every: Annotated[AtLeast1, RARE] = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""
    eval_batch_size: Annotated[AtLeast1 | None, RARE] = None
    """Batch size of evaluations; the training batch size if not given (four times that, in phrases, for segmenters)."""
    val_loss_images: Annotated[AtLeast0, RARE] = 100
    """Validation images, spread evenly, on which each evaluation also measures the losses; 0 disables."""
    save_interval: AtLeast0 = 0
    """Also save checkpoints/last every N steps; 0 saves after each epoch only."""
    log_interval: AtLeast1 = 1
    """Steps between two logged losses, in metrics.jsonl and --log-with."""
    max_skipped: Annotated[AtLeast1, RARE] = 5
    """Steps in a row that may be skipped for a non-finite loss or gradient before the run stops."""


@dataclass(frozen=True)
class Optimiser(Options):
    """The optimiser: AdamW, its learning rate and schedule"""

    learning_rate: Positive | None = None
    """Highest learning rate, after the warm-up; the recipe's own if not given."""
    weight_decay: NotNegative = 1e-4
    """Weight decay; norms, biases and absolute position tables have none."""
    schedule: Literal["step", "cosine"] = "step"
    """How the learning rate falls after the warm-up."""
    lr_drop_at: Annotated[Share, RARE] = 0.85
    """Share of the run after which the step schedule divides the learning rate by ten."""
    warmup_steps: AtLeast0 | None = None
    """Steps of linear warm-up; overrides --warmup-share."""
    warmup_share: ShareBelow1 | None = None
    """Share of the run that is linear warm-up. Without either: a twentieth, for detectors 500 steps at most."""
    clip_norm: Annotated[Positive, RARE] = 0.1
    """Maximum norm of the whole gradient; larger ones are scaled down to it."""
    ema_decay: ShareBelow1 | None = None
    """Decay of an exponential moving average of the weights, which is then evaluated and kept; 0 disables."""

    def warmup(self, total_steps: int) -> int:
        """Steps of warm-up of a run.

        >>> Optimiser().warmup(200), Optimiser(warmup_share=0.5).warmup(200), Optimiser(warmup_steps=7).warmup(200)
        (10, 100, 7)
        """
        if self.warmup_steps is not None:
            return self.warmup_steps
        return min(500, total_steps // 20) if self.warmup_share is None else round(self.warmup_share * total_steps)


@dataclass(frozen=True)
class Lora(Options):
    """Low-rank adapters (LoRA), saved in PEFT's format"""

    lora: bool = False
    """Train adapters in place of the weights themselves: of the detector's --lora-targets, of the segmenter's language
    model."""
    lora_r: Annotated[AtLeast1, Also("lora_rank")] = 16
    """Rank of the adapters."""
    lora_alpha: Positive = 32.0
    """Scale of the adapters, applied as alpha / rank."""
    lora_dropout: Annotated[ShareBelow1, RARE] = 0.0
    """Dropout before the adapters."""


@dataclass(frozen=True)
class Hardware(Options):
    """Hardware: precision, memory, GPUs, loading"""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the network; losses are always fp32."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""
    gpus: AtLeast0 | None = None
    """Number of GPUs on this machine; 0 trains on the CPU. One, if there is one, when not given."""
    price_per_hour: Annotated[Positive | None, RARE] = None
    """Price of one GPU or process for an hour, in any currency: the report then has the cost of 1,000 images."""
    peak_tflops: Annotated[Positive | None, RARE] = None
    """Most TFLOP/s of one GPU or process: the report then has the share that is used (MFU). Known of common GPUs in
    bf16."""
    num_workers: Annotated[AtLeast0, Also("workers")] = 2
    """Processes that load images; 0 loads in the training process. Results do not depend on it."""


def groups_of(kind: type[Options]) -> tuple[type[Options], ...]:
    """The groups that a kind of options is made of, in the order of its help; the kind itself where there are none."""
    groups = tuple(base for base in kind.__bases__ if base is not Options and issubclass(base, Options))
    return groups or (kind,)
