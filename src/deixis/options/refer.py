"""Every option of the segmenter's commands, once: its flag, its YAML key, its help and its check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deixis.options.checks import (
    A_SEGMENTER,
    RUNS,
    at_least,
    check_name,
    check_threshold,
    choose_model,
    require,
    require_model,
)
from deixis.options.types import Options

A_MODEL = "a segmenter's folder or hub id, as in --model ByteDance/Sa2VA-1B"
REFER_PARTS = ("vision", "projector", "language", "embeddings", "text_hidden_fcs", "sam_encoder", "mask_decoder")


@dataclass(frozen=True)
class ReferTrainOptions(Options):
    """Fine-tune a Sa2VA-style segmenter: a phrase in, a mask out."""

    data: tuple[str, ...] = ()
    """Training data in any format (docs/formats.md), clips too (docs/clips.md), several to mix; or
    "scenes:split=refer_train,count=400,seed=1"."""
    data_weights: tuple[float, ...] = ()
    """How often each data set is drawn from, in order of --data and then of the folders below; by size if not given."""
    images: Path | None = None
    """Folder of the training images or videos, where the data does not say."""
    format: str | None = None
    """Format of --data; recognised when not given."""
    refcoco_dir: Path | None = None
    """Folder of RefCOCO, RefCOCO+ or RefCOCOg: refs(unc).p or refs(umd).p beside instances.json. Its split train
    trains; without --val-data its split val validates, and without --test-data its test splits are reported on."""
    sa1b_dir: Path | None = None
    """Folder of SA-1B: sa_*.jpg with sa_*.json. Its masks have no phrases: --model describes them before training, and
    captions that it finds again are trained on (docs/captions.md)."""
    sa1b_max_samples: int = 10_000
    """Most images read from --sa1b-dir; bounds the start-up time and memory too."""
    openimages_dir: Path | None = None
    """Folder of Open Images with segmentation CSV, masks/ and class descriptions."""
    sav_dir: Path | None = None
    """Folder of SA-V: sav_*.mp4 with sav_*_manual.json. Its masks are described like those of --sa1b-dir."""
    cycle_threshold: float = 0.7
    """Least IoU of a mask with the one that its caption gives, for a caption of --sa1b-dir or --sav-dir to be kept."""
    placeholder_captions: bool = False
    """Ask for every mask that has no phrase as "the object", in --data, --sa1b-dir and --sav-dir alike, in place of
    captions written first: a quick mode for masks alone, which teaches no language."""
    clip_frames: int = 5
    """Most frames of a clip in a step; drawn anew in every epoch."""
    val_data: tuple[str, ...] = ()
    """Validation data: the best epoch is chosen on it. Without it a part of the training images is held out: a tenth,
    at least one, and of 100 images or more, where there is no --test-data, another tenth for test."""
    val_images: Path | None = None
    """Folder of the validation images."""
    test_data: tuple[str, ...] = ()
    """Test data: figures before and after training are reported on it. Without it, and with --val-data, figures are
    those of the validation data, and optimistic."""
    test_images: Path | None = None
    """Folder of the test images."""
    model: str = ""
    """What to start from: "builtin", a folder of a run or of `refer new`, a released Sa2VA folder, or a hub id."""
    tokenizer: str | None = None
    """Tokenizer of a released Sa2VA, in place of its own, where that cannot be used: a folder or hub id."""
    sam_model: str | None = None
    """A SAM 2 folder or hub id to join with --model, which is then a plain vision-language model."""
    output: Path = RUNS
    """Folder that holds the runs; without --experiment-name, the folder of this run."""
    experiment_name: str = ""
    """Name of this run: its folder inside the output folder; runs/segmenter when neither is given."""

    epochs: int = 1
    """Passes over the training data."""
    max_steps: int | None = None
    """Stop after so many optimiser steps, whatever the epochs."""
    quick: bool = False
    """A trial that ends in minutes: at most 20 steps, 16 validation images."""
    batch_size: int = 2
    """Images a step on each process, before accumulation."""
    gradient_accumulation_steps: int = 1
    """Batches summed into one optimiser step; equal to one batch of them all."""
    learning_rate: float = 4e-5
    """Highest learning rate, the same for all parts that train but for the next."""
    encoder_lr_factor: float = 1.0
    """Learning rate of `vision` and `sam_encoder`, where --train names them, over that of the rest."""
    weight_decay: float = 0.05
    """AdamW's weight decay; norms, biases and position tables are spared."""
    warmup_share: float = 0.05
    """Share of the run over which the learning rate rises; after it, it falls along a cosine."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient; larger ones are scaled down to it."""
    ema_decay: float = 0.0
    """Decay of an exponential moving average of the weights, which is then evaluated and kept; 0 is none."""
    early_stopping_patience: int = 0
    """Stop after so many evaluations without a better gIoU; 0 never stops early."""

    lora: bool = True
    """Train low-rank adapters (PEFT) in the language model; with --no-lora its own weights train."""
    lora_r: int = 128
    """Rank of the adapters."""
    lora_alpha: float = 256.0
    """Scale of the adapters: they act at alpha over rank."""
    lora_dropout: float = 0.05
    """Dropout before the adapters."""
    train: tuple[str, ...] = ("projector", "text_hidden_fcs", "mask_decoder")
    """Parts that train whole: vision, projector, text_hidden_fcs, sam_encoder, mask_decoder."""
    train_embeddings: bool = False
    """Train all token embeddings; by default only the rows of the new tokens train."""

    behaviour: Literal["deixis", "sa2va"] = "deixis"
    """"sa2va": as released, only the mask of highest predicted IoU learns. "deixis": the best of three learns, and so
    do the predicted IoU and the score that says whether the object is there at all."""
    supervised_masks: Literal["best", "all"] = "best"
    """Of SAM 2's three masks: the best one learns, or all do. "all" is for a model that starts from nothing."""
    words_first: float = 0.0
    """Share of the run in which prompts are made from the words before [SEG], first all, then fewer and fewer, while
    [SEG] learns to carry them. For a model that starts from nothing; 0 for any other."""
    points_first: bool = False
    """Let prompts point at cells of the image before they segment, and give SAM 2 the map as a coarse mask. For a
    model that starts from nothing; saved with it, so that it always does."""
    spatial_tokens: bool = False
    """Tell the language model the outline of each region that it is to describe, as one more token. For a model whose
    vision encoder does not know forms; saved with it, so that it always does."""
    teacher_layout: Literal["deixis", "sa2va"] = "deixis"
    """Layout of teachers/sa2va: "sa2va" is that of released models, with config.json and code of a released --model
    copied, so that Sa2VA's own code loads it. checkpoints/ are deixis's own in any case."""
    weight_mask: float = 2.0
    """Weight of the masks' cross-entropy."""
    weight_dice: float = 0.5
    """Weight of the masks' Dice loss."""
    weight_iou: float | None = None
    """Weight of the loss of the predicted IoU; the behaviour's own if not given."""
    weight_object: float | None = None
    """Weight of the loss of the object score; the behaviour's own if not given."""
    weight_language: float = 1.0
    """Weight of the language model's cross-entropy."""
    weight_point: float = 1.0
    """Weight of the loss of where prompts point, for a model of which they do."""
    mask_points: int = 12_544
    """Points at which mask losses are taken, most of them where the model is unsure; 0 takes every cell of the grid."""

    caption_share: float = 0.0
    """Share of the images that a step asks to describe: a mask in, a phrase out, learnt from the same data. 0.3 teaches
    both directions; 0 leaves describing as it is."""
    max_masks: int = 5
    """Most phrases asked of one image in a step, or masks to describe."""
    max_tiles: int = 12
    """Most tiles in which the vision-language model sees an image."""
    max_tokens: int = 8192
    """Most tokens of a conversation; longer ones are an error, never cut."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the network; losses are always fp32."""
    gradient_checkpointing: bool = False
    """Compute the activations of the language model and of the mask decoder twice to save memory."""
    cache_features: Path | None = None
    """Folder for what the frozen encoders see: each image is encoded once and read from there in later epochs and
    runs. The run says beforehand how much room that takes."""
    cache_gib: float = 100.0
    """Most GiB kept in --cache-features; what does not fit is encoded each time anew."""
    gpus: int | None = None
    """Number of GPUs on this machine; 0 trains on the CPU. One if there is one, when not given."""
    num_workers: int = 2
    """Processes that load images; results do not depend on it."""
    eval_batch_size: int | None = None
    """Phrases a batch in evaluation; four times the training batch size if not given."""
    max_val_images: int | None = None
    """Measure on at most so many validation images, and as many test images."""
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
    max_skipped: int = 5
    """Steps with a non-finite loss or gradient that may be skipped one after another before the run stops."""
    max_unreadable_images: int = 10
    """Damaged training pictures to leave out, each named; one more stops the run."""
    dry_run: bool = False
    """Read everything, print the plan, train nothing."""

    @property
    def default_name(self) -> str:
        """Of a run without a name."""
        return "segmenter"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, self.data, self.refcoco_dir, self.sa1b_dir, self.openimages_dir, self.sav_dir)

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        folders = (self.refcoco_dir, self.sa1b_dir, self.openimages_dir, self.sav_dir)
        require(bool(self.data) or any(folders), "data", self.data, "training data, as in --data labels.json")
        check_name(self.experiment_name)
        for name in ("epochs", "max_steps", "batch_size", "gradient_accumulation_steps", "lora_r", "max_masks"):
            at_least(self, name, 1)
        for name in ("max_tiles", "max_tokens", "log_interval", "evaluate_every", "max_skipped", "eval_batch_size"):
            at_least(self, name, 1)
        for name in ("sa1b_max_samples", "max_val_images", "clip_frames", "seeds"):
            at_least(self, name, 1)
        at_least(self, "max_unreadable_images", 0)
        for name in ("mask_points", "num_workers", "save_interval", "report_images", "seed", "gpus", "val_loss_images"):
            at_least(self, name, 0)
        for name in ("learning_rate", "encoder_lr_factor", "clip_norm", "lora_alpha", "cache_gib"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a number above 0")
        for name in (
            "weight_point",
            "weight_mask",
            "weight_dice",
            "weight_iou",
            "weight_object",
            "weight_language",
            "weight_decay",
        ):
            at_least(self, name, 0.0)
        require(0 <= self.cycle_threshold <= 1, "cycle_threshold", self.cycle_threshold, "a number from 0 to 1")
        joined = self.sam_model is not None
        require(not (joined and self.tokenizer), "tokenizer", self.tokenizer, "none with --sam-model")
        require(
            not joined or self.model != "builtin",
            "sam_model",
            self.sam_model,
            "it with --model, a vision-language model",
        )
        described = (self.sa1b_dir or self.sav_dir) and not self.placeholder_captions
        require(
            not (joined and described),
            "sam_model",
            self.sam_model,
            "--placeholder-captions with --sa1b-dir or --sav-dir: it cannot describe yet",
        )
        require(0 <= self.caption_share <= 1, "caption_share", self.caption_share, "a number from 0 to 1")
        require(
            not (self.caption_share and self.placeholder_captions),
            "caption_share",
            self.caption_share,
            "0 with --placeholder-captions: the model would learn to describe everything by one phrase",
        )
        from_words = self.words_first == 0 or self.behaviour == "deixis"
        for name in ("points_first", "spatial_tokens"):
            released = getattr(self, name) and self.behaviour == "sa2va"
            require(not released, name, True, "no --behaviour sa2va with it: released models do not know it")
        require(from_words, "words_first", self.words_first, "0, as the answers of --behaviour sa2va hold no words")
        for name in ("warmup_share", "words_first", "ema_decay", "lora_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "a number from 0 to under 1")
        require(set(self.train) <= set(REFER_PARTS), "train", self.train, f"some of {', '.join(REFER_PARTS)}")
        require(all(w > 0 for w in self.data_weights), "data_weights", self.data_weights, "numbers above 0")
        chosen = [name for name in ("resume", "auto_resume", "overwrite") if getattr(self, name)]
        require(
            len(chosen) < 2, chosen[0] if chosen else "resume", chosen, "only one of resume, auto_resume, overwrite"
        )
        require_model(self.model, A_SEGMENTER)


@dataclass(frozen=True)
class ReferEvalOptions(Options):
    """Measure a segmenter: cIoU and gIoU, overall and by phrase length, object size and number of objects."""

    data: tuple[str, ...] = ()
    """Data in any format (docs/formats.md), or "scenes:split=refer_unseen,count=100,seed=3"."""
    images: Path | None = None
    """Folder of the images, where the data does not say."""
    format: str | None = None
    """Format of the data; recognised when not given."""
    model: str = ""
    """"builtin", a folder (a run's teachers/ or checkpoints/best, or the released layout), or a hub id."""
    output: Path | None = None
    """Folder for metrics.json and segmentations.json; nothing is written if not given."""
    batch_size: int = 8
    """Phrases a batch."""
    max_images: int | None = None
    """Measure only the first so many images."""
    max_tiles: int = 12
    """Most tiles in which the vision-language model sees an image."""
    generate: bool = False
    """Let the model write its answer, which may lack [SEG]; by default it is given the standard answer."""
    threshold: float | None = None
    """Minimum probability that the object is there; below it the mask is left empty. By default the model's own, fitted
    on validation data, or 0.5 (deixis's behaviour only)."""
    fit_threshold: bool = False
    """Fit this threshold on the data and store it in the model's folder: use validation data, not test data."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU if there is one, when not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, self.data)

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        require(bool(self.data), "data", self.data, "the data, as in --data labels.json")
        check_threshold(self.threshold)
        if self.fit_threshold:
            require(self.threshold is None, "threshold", self.threshold, "none beside --fit-threshold")
            require(not self.generate, "generate", self.generate, "the standard answer with --fit-threshold")
            require(Path(self.model).is_dir(), "model", self.model, "a folder: --fit-threshold stores its result there")
        for name in ("batch_size", "max_images", "max_tiles"):
            at_least(self, name, 1)
        require_model(self.model, A_SEGMENTER)


@dataclass(frozen=True)
class ReferPredictOptions(Options):
    """Find what phrases mean in pictures; write drawn pictures, mask PNGs and JSON."""

    images: tuple[Path, ...] = ()
    """Pictures, or folders of them."""
    phrases: tuple[str, ...] = ()
    """What to look for, as in --phrases "the dog on the left" "the red car"."""
    model: str = ""
    """"builtin", a folder (a run's teachers/ or checkpoints/best, or the released layout), or a hub id."""
    output: Path = Path("segmentations")
    """Folder for pictures/, masks/ and segmentations.json."""
    generate: bool = True
    """Let the model write its answer; with --no-generate it is given the standard one."""
    threshold: float | None = None
    """Minimum probability that the object is there; below it the mask is left empty. By default the model's own, fitted
    on validation data, or 0.5 (deixis's behaviour only)."""
    batch_size: int = 8
    """Phrases a batch."""
    max_tiles: int = 12
    """Most tiles in which the vision-language model sees an image."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU if there is one, when not given."""

    def check(self) -> None:
        """Raises OptionError for the first value that cannot be meant."""
        require(bool(self.images), "images", self.images, "pictures or folders, as in --images photos/")
        require(bool(self.phrases), "phrases", self.phrases, 'what to look for, as in --phrases "the red car"')
        require(all(p.strip() for p in self.phrases), "phrases", self.phrases, "phrases that are not blank")
        check_threshold(self.threshold)
        for name in ("batch_size", "max_tiles"):
            at_least(self, name, 1)
        require_model(self.model, A_SEGMENTER)


@dataclass(frozen=True)
class ReferNewOptions(Options):
    """Write a small segmenter with random weights, to be trained from nothing."""

    output: Path = Path("new_segmenter")
    """Folder to write; it must not exist."""
    words: tuple[str, ...] = ()
    """Words that the tokenizer knows whole, besides those of the generated scenes; others are spelled by letter."""
    seed: int = 0
    """Seed of the weights."""
