"""`deixis demo` and `deixis demo refer`: the whole job on the built-in models and generated scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deixis.cli.arguments import parse
from deixis.options.detect_train import DetectTrainOptions
from deixis.options.refer_train import ReferTrainOptions
from deixis.options.types import Options

EXAMPLES = """
Examples:
  deixis demo
  deixis demo --output elsewhere

It measures the built-in detector on names it has never seen, fine-tunes it, measures it again, also on names
that it knew before, and writes a report.
"""

REFER_EXAMPLES = """
Examples:
  deixis demo refer
  deixis demo refer --output elsewhere

It measures the built-in segmenter on phrases about shapes it has never seen, fine-tunes it, measures it again, and
writes a report with drawn masks.
"""


@dataclass(frozen=True)
class DemoOptions(Options):
    """Fine-tune the built-in detector on new names, offline, in minutes."""

    output: Path = Path("runs")
    """Folder that holds the runs."""
    images: int = 160
    """Generated training pictures."""
    epochs: int = 10
    """Passes over them."""
    seed: int = 0
    """Seed of everything random."""

    def train_options(self) -> DetectTrainOptions:
        """The demo as what it is: a training run."""
        return DetectTrainOptions(
            data=(f"scenes:split=demo_train,count={self.images},seed=1",),
            val_data="scenes:split=demo_val,count=30,seed=4",
            test_data="scenes:split=demo_val,count=60,seed=2",
            model="builtin",
            output=self.output,
            forgetting_data="scenes:split=unseen_pairs,count=60,seed=3",
            experiment_name="demo",
            recipe="small",
            epochs=self.epochs,
            batch_size=8,
            learning_rate=4e-4,
            schedule="cosine",
            multi_scale=False,  # the scenes vary in size themselves
            crop_probability=0.0,
            seed=self.seed,
            overwrite=True,
        )


def demo(arguments: Sequence[str]) -> int:
    """Run the demo."""
    options = parse(DemoOptions, arguments, "demo", EXAMPLES).train_options()
    options.check()
    from deixis.recipes.detect.train import finetune

    finetune(options)
    return 0


@dataclass(frozen=True)
class ReferDemoOptions(Options):
    """Fine-tune the built-in segmenter on new shapes, offline, in minutes."""

    output: Path = Path("runs")
    """Folder that holds the runs."""
    images: int = 240
    """Generated training pictures."""
    epochs: int = 6
    """Passes over them."""
    seed: int = 0
    """Seed of everything random."""

    def train_options(self) -> ReferTrainOptions:
        """The demo as what it is: a training run. Few weights and unknown words: all of them train."""
        return ReferTrainOptions(
            data=(f"scenes:split=refer_demo_train,count={self.images},seed=1",),
            val_data=("scenes:split=refer_demo_val,count=20,seed=4",),
            test_data=("scenes:split=refer_demo_val,count=40,seed=2",),
            model="builtin",
            output=self.output,
            experiment_name="demo_refer",
            epochs=self.epochs,
            evaluate_every=2,
            batch_size=8,
            learning_rate=2e-4,
            lora=False,
            train=("vision", "projector", "text_hidden_fcs", "sam_encoder", "mask_decoder"),
            train_embeddings=True,
            supervised_masks="all",
            weight_dice=2.0,
            mask_points=0,
            max_masks=6,
            max_tiles=1,
            seed=self.seed,
            overwrite=True,
        )


def demo_refer(arguments: Sequence[str]) -> int:
    """Run the segmenter's demo."""
    options = parse(ReferDemoOptions, arguments, "demo refer", REFER_EXAMPLES).train_options()
    options.check()
    from deixis.recipes.refer.train import finetune_segmenter

    finetune_segmenter(options)
    return 0
