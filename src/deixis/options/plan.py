"""The options of `deixis plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from deixis.options.checks import require
from deixis.options.marks import AtLeast0, AtLeast1, NotNegative, Positive, Range
from deixis.options.types import Options


@dataclass(frozen=True)
class PlanOptions(Options):
    """Estimate memory per GPU, network, storage, hours and cost of labelling or training, before any of it runs."""

    pictures: AtLeast1 = 1_000_000
    """How many pictures."""
    task: Literal["label", "train"] = "label"
    """label: detect predict, or annotate with a segmenter; train: fine-tune, sharded over all GPUs."""
    billions: NotNegative = 8.0
    """Parameters of the segmenter's vision-language model, in billions; 0 plans for a Swin-T detector."""
    lora_share: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    """With --task train: share of the parameters that train; 1 trains all, LoRA of rank 16 about 0.01."""
    epochs: AtLeast1 = 1
    """Passes over the pictures."""
    objects: AtLeast0 = 5
    """Objects per picture."""
    tiles: AtLeast1 = 6
    """Tiles in which the vision-language model sees a picture, on average."""
    batch_size: AtLeast1 = 4
    """Pictures per GPU and step."""
    gpus: AtLeast0 = 8
    """GPUs in all; 0 computes on --cores."""
    cores: AtLeast1 = 64
    """CPU cores in all."""
    gpu_memory_gb: Positive = 80.0
    """Memory of one GPU."""
    gpu_tflops: Positive = 400.0
    """Of one GPU for dense products in 16 bits, from its data sheet."""
    gpu_bandwidth_tb_s: Positive = 2.0
    """Of one GPU's memory, from its data sheet."""
    utilisation: Annotated[float, Range(0, 1, open_low=True)] = 0.3
    """Share of --gpu-tflops that is reached: an assumption. On two CPU cores it was 0.56."""
    seconds_per_picture: Positive | None = None
    """Of one GPU, measured by you: replaces the estimate from operations."""
    picture_mb: Positive = 0.3
    """Size of a picture's file."""
    price: NotNegative = 0.0
    """Of a GPU (or, with --gpus 0, a core) for an hour, in any currency."""
    json: bool = False
    """Print everything as JSON."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        require(self.task == "train" or self.epochs == 1, "epochs", self.epochs, "--task train, or 1")
