"""The options of `deixis refer train`, in groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.checks import A_SEGMENTER, choose_model, require_model, require_quantizable
from deixis.options.groups import Hardware, Loop, Lora, Optimiser, Run
from deixis.options.marks import RARE, Also, AtLeast0, AtLeast1, NotNegative, Positive, Removed, Share, ShareBelow1
from deixis.options.old_names import knows_old_names
from deixis.options.types import Options

ReferPart = Literal["vision", "projector", "language", "embeddings", "text_hidden_fcs", "sam_encoder", "mask_decoder"]
Behaviour = Literal["deixis", "sa2va"]


@dataclass(frozen=True)
class ReferData(Options):
    """Data: training, validation and test"""

    data: tuple[str, ...] = ()
    """Training data in any format (docs/formats.md, clips.md, chat.md), or generated scenes, as
    in "scenes:split=refer_train,count=400,seed=1". Several data sets are mixed."""
    images: Path | None = None
    """Folder of the training images or videos, if the data does not name it."""
    val_data: tuple[str, ...] = ()
    """Validation data, which chooses the best epoch; held out of --data if not given."""
    val_images: Path | None = None
    """Folder of the validation images."""
    test_data: tuple[str, ...] = ()
    """Test data, on which results before and after training are reported."""
    test_images: Path | None = None
    """Folder of the test images."""
    format: str | None = None
    """Format of --data; recognised if not given."""
    data_weights: Annotated[tuple[Positive, ...], RARE] = ()
    """How often each data set is drawn from, in order of --data and then of the public data sets; by size if not
    given."""
    max_val_images: AtLeast1 | None = None
    """Measure on at most N validation images, and as many test images."""
    max_unreadable_images: Annotated[AtLeast0, RARE] = 10
    """Damaged training images that are left out, each named; one more stops the run."""


@dataclass(frozen=True)
class PublicData(Options):
    """Public data sets, by their folders; masks without phrases are described first"""

    refcoco_dir: Path | None = None
    """Folder of RefCOCO, RefCOCO+ or RefCOCOg: refs(unc).p or refs(umd).p beside instances.json. Trains on its split
    train; without --val-data its split val validates, and without --test-data its test splits are reported on."""
    sa1b_dir: Path | None = None
    """Folder of SA-1B: sa_*.jpg with sa_*.json. Its masks have no phrases: --model describes them before training, and
    captions that it finds again are trained on (docs/captions.md)."""
    sa1b_max_samples: AtLeast1 = 10_000
    """Maximum number of images read from --sa1b-dir; also bounds start-up time and memory."""
    openimages_dir: Path | None = None
    """Folder of Open Images with segmentation CSV, masks/ and class descriptions."""
    sav_dir: Path | None = None
    """Folder of SA-V: sav_*.mp4 with sav_*_manual.json. Its masks are described like those of --sa1b-dir."""
    cycle_threshold: Annotated[Share, RARE] = 0.7
    """Minimum IoU of a mask with the one that its caption gives, for a caption of --sa1b-dir or --sav-dir to be
    kept."""
    placeholder_captions: bool = False
    """Ask for each mask without a phrase as "the object", in --data, --sa1b-dir and --sav-dir alike, in place of
    captions written first: a quick mode for masks alone, which teaches no language."""


@dataclass(frozen=True)
class ReferParts(Options):
    """Model: what to start from, which parts train"""

    model: str = ""
    """What to start from: "builtin", a run's folder, a released Sa2VA folder, or a hub id."""
    tokenizer: Annotated[str | None, RARE] = None
    """Folder or hub id of a tokenizer, in place of a released Sa2VA's own, where that cannot be used."""
    sam_model: str | None = None
    """Folder or hub id of a SAM 2 to join with --model, which is then a plain vision-language model."""
    train: tuple[ReferPart, ...] = ("projector", "text_hidden_fcs", "mask_decoder")
    """Parts that train whole: vision, projector, text_hidden_fcs, sam_encoder, mask_decoder."""
    freeze: tuple[ReferPart, ...] = ()
    """Parts to freeze of those that would train: of --train, language (its adapters), embeddings (the new tokens)."""
    quantize: Annotated[Literal["4bit", "8bit"] | None, RARE] = None
    """Hold the language model's frozen layers in 4 (NF4) or 8 bits, under adapters (QLoRA; pip install
    'deixis[quantize]'). The teacher is an ordinary model with the rounded weights (docs/segmenter.md)."""
    train_embeddings: Annotated[bool, RARE] = False
    """Train all token embeddings; by default only the rows of the new tokens train."""
    teacher_layout: Annotated[Literal["deixis", "sa2va"], RARE] = "deixis"
    """Layout of teachers/sa2va: "sa2va" is that of released models, with config.json and code of a released --model
    copied, so that Sa2VA's own code loads it. checkpoints/ are deixis's own in any case."""


@dataclass(frozen=True)
class ReferRun(Run):
    """The run: where it writes, how it starts, what it reports"""

    default_name = "segmenter"

    quick: bool = False
    """A trial that ends in minutes: at most 20 steps, 16 validation images."""


@dataclass(frozen=True)
class ReferLoss(Options):
    """Loss: which masks learn, weights"""

    behaviour: Annotated[Behaviour, RARE] = "deixis"
    """"sa2va": as released, only the mask of highest predicted IoU learns. "deixis": the best of three learns, and so
    do the predicted IoU and the score that says whether the object is there at all."""
    weight_mask: Annotated[NotNegative, RARE] = 2.0
    """Weight of the masks' cross-entropy."""
    weight_dice: Annotated[NotNegative, RARE] = 0.5
    """Weight of the masks' Dice loss."""
    weight_iou: Annotated[NotNegative | None, RARE] = None
    """Weight of the loss of the predicted IoU; the behaviour's own if not given."""
    weight_object: Annotated[NotNegative | None, RARE] = None
    """Weight of the loss of whether the object is there; the behaviour's own if not given."""
    weight_language: Annotated[NotNegative, RARE] = 1.0
    """Weight of the language model's cross-entropy."""
    weight_point: Annotated[NotNegative, RARE] = 1.0
    """Weight of the loss of where prompts point, for a model of which they do; the built-in's recipe has 4."""
    mask_points: Annotated[AtLeast0, RARE] = 12_544
    """Points at which mask losses are taken, most of them where the model is unsure; 0 takes every cell of the grid."""


@dataclass(frozen=True)
class Conversations(Options):
    """Conversations: what is asked of an image, and in how many tokens"""

    caption_share: Share = 0.0
    """Share of the images that a step asks to describe: a mask in, a phrase out, learnt from the same data. 0.3 teaches
    both directions; 0 disables."""
    max_masks: AtLeast1 = 5
    """Maximum number of phrases, or masks to describe, per image and step."""
    max_tiles: AtLeast1 = 12
    """Maximum number of tiles in which the vision-language model sees an image."""
    max_tokens: Annotated[AtLeast1, RARE] = 8192
    """Maximum number of tokens per conversation; longer ones are an error, never cut."""
    clip_frames: Annotated[AtLeast1, RARE] = 5
    """Maximum number of frames per clip and step, drawn anew in every epoch."""


@dataclass(frozen=True)
class ReferHardware(Hardware):
    """Hardware: precision, memory, GPUs, loading"""

    shard_model: Annotated[bool, RARE] = False
    """Divide weights, gradients and optimiser state among the processes (FSDP2), for models whose training does not fit
    on one GPU. Evaluation gathers the weights alone on each (docs/shards.md)."""
    cache_features: Path | None = None
    """Folder for the features of the frozen encoders: each image is encoded once and read from there in later epochs
    and runs. The run first prints how much space that takes."""
    cache_gib: Annotated[Positive, RARE] = 100.0
    """Maximum GiB kept in --cache-features; what does not fit is encoded each time."""


@dataclass(frozen=True)
class ReferForgetting(Options):
    """Forgetting: what the model could say before"""

    forgetting_data: str = ""
    """Conversations that show what is forgotten; default: some of --data (docs/chat.md)."""
    forgetting_images: Annotated[Path | None, RARE] = None
    """Folder of their images or videos, if the file does not name it."""
    forgetting_max_images: Annotated[AtLeast1, RARE] = 100
    """Maximum number of conversations measured, spread evenly."""


_FROM_SCRATCH = "scripts/build_builtin trains small models from random weights"


@knows_old_names
@dataclass(frozen=True)
class ReferTrainOptions(
    ReferData,
    PublicData,
    ReferParts,
    ReferRun,
    Loop,
    Optimiser,
    Lora,
    Conversations,
    ReferHardware,
    ReferLoss,
    ReferForgetting,
):
    """Fine-tune a Sa2VA-style segmenter: a phrase in, a mask out."""

    REMOVED = MappingProxyType(
        {
            "encoder_lr_factor": Removed(1.0, "all trained parts share --learning-rate"),
            "words_first": Removed(0.0, _FROM_SCRATCH),
            "points_first": Removed(False, f"a model that points first keeps doing so; {_FROM_SCRATCH}"),
            "spatial_tokens": Removed(False, f"a model that has spatial tokens keeps them; {_FROM_SCRATCH}"),
            "supervised_masks": Removed("best", "of the three masks of an object the best one is trained"),
        }
    )

    epochs: AtLeast1 = 1
    batch_size: AtLeast1 = 2
    learning_rate: Positive = 4e-5
    weight_decay: NotNegative = 0.05
    schedule: Literal["step", "cosine"] = "cosine"
    warmup_share: Annotated[ShareBelow1 | None, RARE] = 0.05
    clip_norm: Annotated[Positive, RARE] = 1.0
    ema_decay: ShareBelow1 | None = 0.0
    lora: bool = True
    lora_r: Annotated[AtLeast1, Also("lora_rank")] = 128
    lora_alpha: Positive = 256.0
    lora_dropout: Annotated[ShareBelow1, RARE] = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, self.data, self.refcoco_dir, self.sa1b_dir, self.openimages_dir, self.sav_dir)

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        folders = (self.refcoco_dir, self.sa1b_dir, self.openimages_dir, self.sav_dir)
        if not ((all(self.data) and self.data) or any(folders)):
            raise OptionError("--data is required, as in --data labels.json")
        super().check()
        self.check_run()
        self._check_joined()
        if self.caption_share and self.placeholder_captions:
            raise OptionError(
                f"--caption-share: expected 0 with --placeholder-captions, got {self.caption_share}; the model would "
                "learn to describe everything by one phrase"
            )
        if self.shard_model and self.cache_features:
            raise OptionError("--shard-model and --cache-features exclude each other; leave one of them out")
        if self.quantize:
            require_quantizable(self.quantize, self.shard_model, self.lora or "language" in self.freeze)
        require_model(self.model, A_SEGMENTER)

    def _check_joined(self) -> None:
        """Raises OptionError for options that a model joined by --sam-model excludes."""
        if self.sam_model is None:
            return
        if self.tokenizer:
            raise OptionError("--tokenizer and --sam-model exclude each other; --model brings its tokenizer")
        if self.model == "builtin":
            raise OptionError("--sam-model needs --model with a vision-language model, got 'builtin'")
        if (self.sa1b_dir or self.sav_dir) and not self.placeholder_captions:
            raise OptionError(
                "--sam-model needs --placeholder-captions for --sa1b-dir and --sav-dir: the joined model cannot "
                "describe masks yet"
            )
