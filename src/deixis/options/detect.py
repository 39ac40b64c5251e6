"""Every option of the detector's commands, once: its flag, its YAML key, its help and its check.

A field `batch_size` is the flag `--batch-size` and the YAML key `batch_size`; the string under it is its help. A value
of None means "the recipe or the model decides"; `recipes.policy.resolve` fills those in, and the resolved options are
written beside the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deixis.options.checks import A_DETECTOR, RUNS, check_name, choose_model, require_model
from deixis.options.checks import at_least as _at_least
from deixis.options.checks import require as _require
from deixis.options.types import Options

PARTS = ("backbone", "text", "encoder", "decoder", "heads")
LORA_TARGETS = ("encoder", "decoder", "backbone", "text")


@dataclass(frozen=True)
class DetectTrainOptions(Options):
    """Fine-tune a Grounding DINO detector on your own pictures and boxes."""

    data: tuple[str, ...] = ()
    """Training annotations in any format (docs/formats.md), or "scenes:split=demo_train,count=160,seed=1"; several data
    sets are trained together, each with its own class names or sentences."""
    data_weights: tuple[float, ...] = ()
    """How often each data set is shown, as in --data-weights 2 1; by its number of images when not given."""
    epoch_length: int | None = None
    """Images of an epoch; as many as all data sets have together, when not given."""
    images: tuple[Path, ...] = ()
    """Folder of the training images, where the annotations do not say: one for all data sets, or one for each."""
    val_data: str = ""
    """Validation annotations: the best epoch is chosen on them. Without them a part of the training data is held out,
    duplicates kept together: 15 % for validation and 15 % for test of 100 images or more, 20 % for validation of
    fewer or beside --test-data."""
    val_images: Path | None = None
    """Folder of the validation images."""
    test_data: str = ""
    """Test annotations: figures before and after training are reported on them. Without them, and with --val-data,
    figures are those of the validation data, and optimistic."""
    test_images: Path | None = None
    """Folder of the test images."""
    format: str | None = None
    """Format of the annotations (docs/formats.md); recognised when not given."""
    model: str = ""
    """What to start from: a hub id, a folder that transformers can load, or "builtin", the default for scenes."""
    output: Path = RUNS
    """Folder that holds the runs; with several machines, one that all of them see. Without --experiment-name, the
    folder of this run."""
    experiment_name: str = ""
    """Name of this run: its folder inside the output folder; runs/detector when neither is given."""

    recipe: Literal["auto", "small", "medium", "large", "scratch"] = "auto"
    """What to train and how fast; "auto" chooses by the number of training images (README, Recipes)."""
    epochs: int | None = None
    """Passes over the training data; the recipe's own number if not given."""
    max_steps: int | None = None
    """Stop after so many optimiser steps, whatever the epochs."""
    batch_size: int = 4
    """Images a step on each process, before accumulation."""
    gradient_accumulation_steps: int = 1
    """Batches summed into one optimiser step; equal to one batch of them all."""
    learning_rate: float | None = None
    """Learning rate of the parts trained at full speed; the recipe's own if not given."""
    backbone_lr_factor: float | None = None
    """Learning rate of the image backbone over the full one; 0 freezes it."""
    text_lr_factor: float | None = None
    """Learning rate of the text encoder over the full one; 0 freezes it."""
    freeze: tuple[str, ...] = ()
    """More parts to freeze: backbone, text, encoder, decoder, heads."""
    weight_decay: float = 1e-4
    """AdamW's weight decay; norms, biases and absolute position tables are spared."""
    schedule: Literal["step", "cosine"] = "step"
    """How the learning rate falls after the warm-up."""
    lr_drop_at: float = 0.85
    """Share of the run after which the step schedule divides the learning rate by ten."""
    warmup_steps: int | None = None
    """Steps of linear warm-up; a twentieth of the run, 500 at most, if not given."""
    clip_norm: float = 0.1
    """Largest norm of the whole gradient; larger ones are scaled down to it."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, which is then evaluated and kept; 0 is none."""
    stop_after_epochs: int | None = None
    """End after so many epochs, with the learning rates of a run of all of them."""
    early_stopping_patience: int = 0
    """Stop after so many epochs without a better AP; 0 never stops early."""

    lora: bool = False
    """Train low-rank adapters (PEFT) in place of the weights themselves."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_alpha: float = 32.0
    """Scale of the adapters: they act at alpha over rank."""
    lora_dropout: float = 0.0
    """Dropout before the adapters."""
    lora_targets: tuple[str, ...] = ("encoder", "decoder")
    """Parts that get adapters: encoder, decoder, backbone, text."""

    loss_preset: Literal["auto", "grounding_dino", "mm_grounding_dino"] = "auto"
    """Matching costs and loss weights; "auto" takes those of the model's own flavour."""
    weight_class: float | None = None
    """Weight of the classification loss, in place of the preset's."""
    weight_box: float | None = None
    """Weight of the L1 box loss, in place of the preset's."""
    weight_giou: float | None = None
    """Weight of the GIoU loss, in place of the preset's."""
    cost_class: float | None = None
    """Matching cost of the class, in place of the preset's."""
    cost_box: float | None = None
    """Matching cost of the L1 distance, in place of the preset's."""
    cost_giou: float | None = None
    """Matching cost of the GIoU, in place of the preset's."""
    focal_alpha: float = 0.25
    """Alpha of the focal loss."""
    focal_gamma: float = 2.0
    """Gamma of the focal loss."""
    encoder_loss: Literal["token", "objectness"] = "token"
    """What the encoder's proposals learn to score: the tokens of their class, or object against background."""
    denoising_queries: int = 0
    """Noised copies of an image's objects that the decoder also learns to put right, with as many decoys; 0 is none."""
    denoising_label_noise: float = 0.25
    """Share of the denoising queries that are told another class of their prompt."""
    denoising_box_noise: float = 1.0
    """How far copies' corners are moved, over half the box's width and height."""

    image_size: tuple[int, int] | None = None
    """Shorter and longest side of the images in pixels; the model's own if not given."""
    multi_scale: bool = True
    """Train on several sizes up to the image size."""
    flip_probability: float = 0.5
    """Share of training images mirrored left to right; 0 for data where left and right matter."""
    crop_probability: float = 0.5
    """Share of training images cropped at random."""
    shuffle_names: bool = True
    """Order the class names of the prompt anew for every training image."""
    prompt_names: int | None = None
    """Most names of a training prompt: the image's own and some it does not show; as many as fit if not given."""
    hard_negatives: float = 0.0
    """Share of sampled names that are close in meaning to the image's own; only where not all names are asked."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the network; losses are always fp32."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""
    compile: bool = False
    """Compile encoder and decoder (torch.compile; minutes at first), pad to 64 pixels: for GPUs, no faster on a CPU."""
    gpus: int | None = None
    """Number of GPUs on this machine; 0 trains on the CPU. One if there is one, when not given."""
    workers: int = 2
    """Processes that load images; 0 loads in the training process. Results do not depend on it."""
    max_detections: int | None = None
    """Detections of an image that count in evaluation, the best ones; COCO's 100 (LVIS's 300) if not given. Images with
    more objects need more."""
    eval_batch_size: int | None = None
    """Images a batch in evaluation; the training batch size if not given."""
    seed: int = 0
    """Seed of everything random; which images are held out does not depend on it."""
    seeds: int = 1
    """Repeat the run with so many seeds, from --seed on, in folders of their own; report mean and spread."""

    baseline: bool = True
    """Measure the model before training, with the same evaluation."""
    resume: bool = False
    """Go on from checkpoints/last of this run; an error when there is none."""
    auto_resume: bool = False
    """Go on from checkpoints/last when there is one, start anew otherwise."""
    overwrite: bool = False
    """Replace a run of the same name."""
    evaluate_every: int = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""
    val_loss_images: int = 100
    """Validation images of which the losses are measured at each evaluation too, spread evenly; 0 disables."""
    save_interval: int = 0
    """Also save checkpoints/last every so many steps; 0 saves after each epoch only."""
    log_interval: int = 1
    """Steps between two lines of losses in metrics.jsonl and TensorBoard."""
    report: bool = True
    """Write report.html at the end."""
    report_images: int = 8
    """Validation images drawn in the report, before and after."""
    forgetting_data: str = ""
    """Annotations of names the model should not forget; measured before, after and between at the end of the run."""
    forgetting_images: Path | None = None
    """Folder of those images, where the annotations do not say."""
    forgetting_sweep: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Weights between the base (0) and the tuned model (1) that are measured besides these two."""
    forgetting_max_images: int = 100
    """Most images measured of the test data (validation data without it) and of the forgetting data, per weight."""
    max_skipped: int = 5
    """Steps with a non-finite loss or gradient that may be skipped one after another before the run stops."""
    max_unreadable_images: int = 10
    """Damaged training pictures to leave out, each named; one more stops the run."""
    dry_run: bool = False
    """Read everything, print the plan, train nothing."""

    @property
    def default_name(self) -> str:
        """Of a run without a name."""
        return "detector"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, self.data)

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        _require(all(self.data) and bool(self.data), "data", self.data, "the annotations, as in --data labels.json")
        count = len(self.data)
        _require(len(self.images) in (0, 1, count), "images", self.images, f"one folder, or {count}")
        _require(len(self.data_weights) in (0, count), "data_weights", self.data_weights, f"{count} numbers")
        _require(all(w > 0 for w in self.data_weights), "data_weights", self.data_weights, "numbers above 0")
        _at_least(self, "epoch_length", 1)
        check_name(self.experiment_name)
        for name in (
            "batch_size",
            "gradient_accumulation_steps",
            "log_interval",
            "lora_rank",
            "max_skipped",
            "evaluate_every",
            "forgetting_max_images",
            "seeds",
        ):
            _at_least(self, name, 1)
        for name in ("epochs", "max_steps", "stop_after_epochs", "eval_batch_size", "prompt_names", "max_detections"):
            _at_least(self, name, 1)
        for name in (
            "warmup_steps",
            "early_stopping_patience",
            "workers",
            "save_interval",
            "report_images",
            "gpus",
            "seed",
            "denoising_queries",
            "val_loss_images",
            "max_unreadable_images",
        ):
            _at_least(self, name, 0)
        for name in ("learning_rate", "clip_norm", "lora_alpha"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, value, "a number above 0")
        for name in ("backbone_lr_factor", "text_lr_factor", "weight_decay", "focal_gamma"):
            _at_least(self, name, 0.0)
        for name in ("weight_class", "weight_box", "weight_giou", "cost_class", "cost_box", "cost_giou"):
            _at_least(self, name, 0.0)
        shares = ("flip_probability", "crop_probability", "lr_drop_at", "focal_alpha", "hard_negatives")
        for name in (*shares, "denoising_label_noise", "denoising_box_noise"):
            value = getattr(self, name)
            _require(0 <= value <= 1, name, value, "a number from 0 to 1")
        for name in ("ema_decay", "lora_dropout"):
            value = getattr(self, name)
            _require(value is None or 0 <= value < 1, name, value, "a number from 0 to under 1")
        fine = all(0 <= weight <= 1 for weight in self.forgetting_sweep)
        _require(fine, "forgetting_sweep", self.forgetting_sweep, "numbers from 0 to 1, as in 0.25 0.5 0.75")
        _require(set(self.freeze) <= set(PARTS), "freeze", self.freeze, f"some of {', '.join(PARTS)}")
        targets = set(self.lora_targets)
        _require(
            bool(targets) and targets <= set(LORA_TARGETS), "lora_targets", self.lora_targets, ", ".join(LORA_TARGETS)
        )
        if self.image_size is not None:
            short_px, long_px = self.image_size
            _require(32 <= short_px <= long_px, "image_size", self.image_size, "32 <= shorter side <= longest side")
        chosen = [name for name in ("resume", "auto_resume", "overwrite") if getattr(self, name)]
        _require(
            len(chosen) < 2, chosen[0] if chosen else "resume", chosen, "only one of resume, auto_resume, overwrite"
        )
        require_model(self.model, A_DETECTOR)


@dataclass(frozen=True)
class DetectEvalOptions(Options):
    """Measure a detector: COCO mAP overall, by size and by class."""

    data: str = ""
    """Annotations in any format (docs/formats.md), or "scenes:split=demo_val,count=100,seed=2"."""
    images: Path | None = None
    """Folder of the images, where the annotations do not say."""
    format: str | None = None
    """Format of the annotations; recognised when not given."""
    model: str = ""
    """"builtin", a folder (a run's teachers/ or checkpoints/best), or a hub id."""
    output: Path | None = None
    """Folder for metrics.json and coco_results.json; nothing is written if not given."""
    batch_size: int = 4
    """Images a batch."""
    prompt_names: int | None = None
    """Most names asked for at once; as many as a prompt holds when not given."""
    max_images: int | None = None
    """Measure only the first so many images."""
    max_detections: int | None = None
    """Detections of an image that count, the best ones; COCO's 100 (LVIS's 300) if not given. Images with more objects
    need more."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU if there is one, when not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, self.data)

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        _require(bool(self.data), "data", self.data, "the annotations, as in --data labels.json")
        for name in ("batch_size", "prompt_names", "max_images", "max_detections"):
            _at_least(self, name, 1)
        require_model(self.model, A_DETECTOR)


@dataclass(frozen=True)
class DetectPredictOptions(Options):
    """Find named things in pictures; write drawn pictures, JSON and COCO results."""

    images: tuple[Path, ...] = ()
    """Pictures, or folders of them."""
    names: tuple[str, ...] = ()
    """What to look for, as in --names raccoon "traffic light"; any number. The names that the model was fine-tuned on,
    where none are given."""
    names_file: Path | None = None
    """Text file of what to look for, one name a line; after those of --names."""
    names_data: str = ""
    """Annotations whose class names to look for, in any format; after the others."""
    model: str = ""
    """"builtin", a folder (a run's teachers/ or checkpoints/best), or a hub id."""
    output: Path = Path("predictions")
    """Folder for pictures/, predictions.json and coco_results.json."""
    threshold: float = 0.3
    """Lowest score that is kept."""
    max_detections: int = 100
    """Most detections kept in one picture."""
    batch_size: int = 4
    """Images a batch."""
    prompt_names: int | None = None
    """Most names asked for at once; as many as a prompt holds when not given."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU if there is one, when not given."""

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        _require(bool(self.images), "images", self.images, "pictures or folders, as in --images photos/")
        _require(0 <= self.threshold <= 1, "threshold", self.threshold, "a number from 0 to 1")
        _at_least(self, "max_detections", 1)
        _at_least(self, "batch_size", 1)
        _at_least(self, "prompt_names", 1)
        require_model(self.model, A_DETECTOR)


@dataclass(frozen=True)
class DetectNewOptions(Options):
    """Write a small detector with random weights, to be trained from nothing."""

    output: Path = Path("new_detector")
    """Folder to write, in transformers' layout; it must not exist."""
    words: tuple[str, ...] = ()
    """Words that the tokenizer knows whole, besides those of the generated scenes; others are spelled by letter."""
    seed: int = 0
    """Seed of the weights."""
