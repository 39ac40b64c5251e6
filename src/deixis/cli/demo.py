"""`deixis demo`: the whole job on the built-in detector and generated scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deixis.cli.arguments import parse
from deixis.recipes.options import DetectTrainOptions

EXAMPLES = """
Examples:
  deixis demo
  deixis demo --output elsewhere

It measures the built-in detector on names it has never seen, fine-tunes it, measures it again, also on names
that it knew before, and writes a report.
"""


@dataclass(frozen=True)
class DemoOptions:
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
            val_data="scenes:split=demo_val,count=60,seed=2",
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
    from deixis.recipes.finetune_detector import finetune

    finetune(options)
    return 0
