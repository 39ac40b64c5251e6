"""The options of `deixis detect train`, in groups.

None means "the recipe or the model decides": `recipes.detect.policy.resolve` fills those in, and the resolved options
are written beside the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.annotated_data import ClassTools
from deixis.options.checks import A_DETECTOR, choose_model, require, require_model, wanted_precision
from deixis.options.groups import Hardware, Loop, Lora, Optimiser, Run
from deixis.options.marks import (
    RARE,
    AtLeast0,
    AtLeast1,
    Gone,
    NotNegative,
    Positive,
    Range,
    Removed,
    Required,
    Share,
    Sides,
    WithWordings,
)
from deixis.options.old_names import knows_old_names
from deixis.options.types import Options
from deixis.options.used_models import MAX_SINKS

Part = Literal["backbone", "text", "encoder", "decoder", "heads"]
LoraTarget = Literal["encoder", "decoder", "backbone", "text"]

_EVERYTHING = (
    "large with --text-lr-factor 1 --learning-rate 4e-4 trains all of a model as fast; scripts/build_builtin trains a "
    "small one from random weights"
)


@dataclass(frozen=True)
class DetectData(Options):
    """Data: training, validation and test"""

    data: Annotated[tuple[str, ...], Required("labels.json")] = ()
    """Training annotations in any format (docs/formats.md), or generated scenes, as in
    "scenes:split=demo_train,count=160,seed=1". Several data sets are mixed."""
    images: tuple[Path, ...] = ()
    """Folder of the training images, if the annotations do not name it: one for all data sets, or one for each."""
    val_data: str = ""
    """Validation annotations, on which the best epoch is chosen. Default: a part of the training data is held out,
    duplicates kept together."""
    val_images: Path | None = None
    """Folder of the validation images."""
    hold_out: Annotated[bool, RARE] = True
    """Without --val-data, hold a part of the training data out. --no-hold-out trains on all of it for the whole
    schedule and keeps the last weights; figures are then of the training images themselves (docs/learning.md)."""
    test_data: str = ""
    """Test annotations, on which results before and after training are reported."""
    test_images: Path | None = None
    """Folder of the test images."""
    format: str | None = None
    """Format of the annotations (docs/formats.md); recognised if not given."""
    repair_missing: bool = False
    """Do not count objects that --model is sure of and nobody annotated as background."""
    repair_as: Annotated[Literal["unknown", "objects"], RARE] = "unknown"
    """What --repair-missing makes of them: neither objects nor background; or objects, where --model finds half of the
    annotated ones of the class."""
    balance_classes: Annotated[Share, RARE] = 0.0
    """Show images of classes that are in fewer than this share of the images more often; 0 disables."""
    data_weights: tuple[Positive, ...] = ()
    """How often each data set is shown, as in --data-weights 2 1; in proportion to its size if not given."""
    epoch_length: Annotated[AtLeast1 | None, RARE] = None
    """Images per epoch; as many as all data sets have together, if not given."""
    max_unreadable_images: Annotated[AtLeast0, RARE] = 10
    """Damaged training images that are left out, each named; one more stops the run."""

    @property
    def without_validation(self) -> bool:
        """Whether nothing is left to choose an epoch, thresholds or anything else on."""
        return not self.hold_out and not self.val_data


@dataclass(frozen=True)
class DetectParts(Options):
    """Model: what to start from, which parts train"""

    model: str = ""
    """What to start from: a hub id, a folder that transformers can load, or "builtin", the default for scenes."""
    recipe: Annotated[Literal["auto", "few", "small", "medium", "large"], Gone("scratch", _EVERYTHING)] = "auto"
    """What to train and how fast; "auto" chooses by the number of training images (README, Recipes)."""
    decoder: Annotated[Literal["sequence", "parallel"] | None, RARE] = None
    """"parallel": all decoder layers but the first start from the first one's queries, and predictions are averaged,
    which only deixis and ONNX files do (docs/learning.md); as the model's folder says if not given."""
    freeze: tuple[Part, ...] = ()
    """More parts to freeze: backbone, text, encoder, decoder, heads."""
    backbone_lr_factor: NotNegative | None = None
    """Learning rate of the image backbone, relative to --learning-rate; 0 freezes it."""
    text_lr_factor: NotNegative | None = None
    """Learning rate of the text encoder, relative to --learning-rate; 0 freezes it."""


@dataclass(frozen=True)
class DetectRun(Run):
    """The run: where it writes, how it starts, what it reports"""

    default_name = "detector"

    compare_with: Annotated[str, RARE] = ""
    """Weights of another run, such as one on labels that nobody corrected: they are measured on the same images, and
    the report says what this run has gained over them."""


@dataclass(frozen=True)
class DetectLora(Lora):
    """Low-rank adapters (LoRA), saved in PEFT's format"""

    lora_targets: Annotated[tuple[LoraTarget, ...], RARE] = ("encoder", "decoder")
    """Parts that get adapters: encoder, decoder, backbone, text."""


@dataclass(frozen=True)
class DetectLoss(Options):
    """Loss: matching costs, weights, denoising queries"""

    loss_preset: Annotated[Literal["auto", "grounding_dino", "mm_grounding_dino"], RARE] = "auto"
    """Matching costs and loss weights; "auto" takes those of the model's own family."""
    weight_class: Annotated[NotNegative | None, RARE] = None
    """Weight of the classification loss, in place of the preset's."""
    weight_box: Annotated[NotNegative | None, RARE] = None
    """Weight of the L1 box loss, in place of the preset's."""
    weight_giou: Annotated[NotNegative | None, RARE] = None
    """Weight of the GIoU loss, in place of the preset's."""
    cost_class: Annotated[NotNegative | None, RARE] = None
    """Matching cost of the class, in place of the preset's."""
    cost_box: Annotated[NotNegative | None, RARE] = None
    """Matching cost of the L1 distance, in place of the preset's."""
    cost_giou: Annotated[NotNegative | None, RARE] = None
    """Matching cost of the GIoU, in place of the preset's."""
    focal_alpha: Annotated[Share, RARE] = 0.25
    """Alpha of the focal loss."""
    focal_gamma: Annotated[NotNegative, RARE] = 2.0
    """Gamma of the focal loss."""
    encoder_loss: Annotated[Literal["token", "objectness"], RARE] = "token"
    """What the encoder's proposals learn to score: the tokens of their class, or object against background."""
    denoising_queries: Annotated[AtLeast0, RARE] = 0
    """Noised copies of an image's objects that the decoder also learns to correct, with as many decoys; 0 disables."""


@dataclass(frozen=True)
class DetectImages(Options):
    """Images and prompts: sizes, augmentation, names"""

    image_size: Annotated[tuple[int, int] | None, Sides()] = None
    """Shorter and longest side of the images in pixels; the model's own if not given."""
    augment: Literal["light", "flips", "strong", "aerial", "none"] | None = None
    """How images are varied (docs/learning.md); by default light (flips, crops, resizes), with
    --keep prompt none; flips keeps one size and crops nothing."""
    show_augmented: Annotated[Path | None, RARE] = None
    """Before training, or in a dry run, write this page (.html) of training images as the model is shown them."""
    flip_probability: Share = 0.5
    """Share of training images mirrored left to right; 0 where sides matter."""
    names: Annotated[tuple[str, ...], WithWordings(), RARE] = ()
    """Several wordings of a class, as in --names "car=car,automobile,sedan": one is drawn for each training prompt, all
    are looked for in evaluation and later use."""
    prompt_names: Annotated[AtLeast1 | None, RARE] = None
    """Maximum number of names per training prompt: the image's own and some others; as many as fit if not given."""
    threshold_for: Annotated[str, RARE] = "f1"
    """What the thresholds that are kept with the model are chosen for, on validation data: f1, or a precision, as in
    precision=0.9."""
    calibrate: Annotated[bool, RARE] = False
    """Scores mean the share of detections that are right: temperature and shift, fitted on validation data, are kept
    with the model."""
    sinks: Annotated[int, Range(0, MAX_SINKS), RARE] = 0
    """After training, try this many attention sinks against detections of what is not there (8 to 24 are usual), on
    validation data; they are kept with the model only if they help. 0 tries none."""
    max_detections: AtLeast1 | None = None
    """Detections per image that count in evaluation, the best ones; COCO's 100 (LVIS's 300) if not given. Images with
    more objects need more."""


@dataclass(frozen=True)
class Forgetting(Options):
    """Forgetting: what the model knew before, kept and measured"""

    keep: Literal["none", "edit", "replay", "prompt", "interpolate"] = "none"
    """How old names are kept while new ones are learnt (docs/learning.md)."""
    keep_weight: Annotated[Share, RARE] = 0.5
    """Weight of the trained model in the weights in between of --keep interpolate, from 0 (the base) to 1."""
    replay_data: Annotated[str, RARE] = ""
    """Annotations of old names, in any format, for --keep replay; with --replay-names a folder of images alone."""
    replay_images: Annotated[Path | None, RARE] = None
    """Folder of those images, if the annotations do not name it."""
    replay_names: Annotated[tuple[str, ...], RARE] = ()
    """Names that the model looks for on old images without annotations; what it finds is trained on as its own."""
    replay_share: Annotated[Share, RARE] = 0.25
    """Share of the old pictures among those of an epoch; the new ones are shown as often as without them."""

    forgetting_data: str = ""
    """Annotations of names that should not be forgotten; measured before and after training."""
    forgetting_images: Path | None = None
    """Folder of those images, if the annotations do not name it."""
    forgetting_sweep: Annotated[tuple[Share, ...], RARE] = (0.25, 0.5, 0.75)
    """Interpolation weights between the base model (0) and the trained one (1) that are measured besides these two."""
    forgetting_max_images: Annotated[AtLeast1, RARE] = 100
    """Maximum number of images measured per weight, of the data that is reported on and of the forgetting data each."""

    def check_keeping(self, lora: bool) -> None:
        """Raises OptionError for options that do not belong together."""
        if (self.keep == "replay") != bool(self.replay_data):
            raise OptionError("--keep replay and --replay-data belong together: give both, or neither")
        if self.keep not in ("none", "replay") and lora:
            raise OptionError(f"--keep {self.keep} does not work with --lora; leave out one of them")
        require(0 < self.replay_share < 1, "replay_share", self.replay_share, "a number above 0, below 1")


@knows_old_names
@dataclass(frozen=True)
class DetectTrainOptions(
    DetectData,
    ClassTools,
    DetectParts,
    DetectRun,
    Loop,
    Optimiser,
    DetectLora,
    DetectImages,
    Hardware,
    DetectLoss,
    Forgetting,
):
    """Fine-tune a Grounding DINO detector on your own images and boxes."""

    REMOVED = MappingProxyType(
        {
            **ClassTools.REMOVED,
            "hard_negatives": Removed(0.0, "the other names of a prompt are drawn at random"),
            "compile": Removed(False, "it made no step faster where it was measured"),
            "multi_scale": Removed(True, "--augment flips trains on one size, without crops"),
            "crop_probability": Removed(0.5, "--augment flips trains without crops"),
            "repair_score": Removed(0.4, "it is 0.4"),
            "shuffle_names": Removed(True, "the names of a prompt are always shuffled"),
            "denoising_label_noise": Removed(0.25, "it is 0.25"),
            "denoising_box_noise": Removed(1.0, "it is 1"),
            "shard_model": Removed(
                False, "detectors fit on each GPU (docs/scale.md): leave it out", "divides segmenters, not detectors"
            ),
        }
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_model(self, self.data)

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        count = len(self.data)
        require(len(self.images) in (0, 1, count), "images", self.images, f"one folder, or one per data set ({count})")
        require(len(self.data_weights) in (0, count), "data_weights", self.data_weights, f"one per data set ({count})")
        self.check_run()
        require(bool(self.lora_targets), "lora_targets", self.lora_targets, "one or more parts")
        self.check_keeping(self.lora)
        if self.balance_classes and (self.data_weights or self.epoch_length or self.replay_data):
            raise OptionError("--balance-classes does not work with --data-weights, --epoch-length or --replay-data")
        if self.decoder is not None and (self.lora or self.keep in ("edit", "interpolate", "prompt")):
            raise OptionError("--decoder changes what all weights do: it does not work with --lora or --keep")
        if self.repair_as == "objects" and not self.repair_missing:
            raise OptionError("--repair-as objects is for --repair-missing; give both, or neither")
        if self.without_validation and (self.sinks or self.calibrate):
            raise OptionError("--no-hold-out: --sinks and --calibrate need validation data; give --val-data")
        page = self.show_augmented
        require(page is None or page.suffix == ".html", "show_augmented", page, "a file that ends in .html")
        require_model(self.model, A_DETECTOR)
        wanted_precision(self.threshold_for)
