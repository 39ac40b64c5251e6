"""The options of `deixis loop`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.checks import A_DETECTOR, require_model
from deixis.options.marks import AtLeast0, AtLeast1, Required, Share
from deixis.options.types import Options


@dataclass(frozen=True)
class LoopOptions(Options):
    """Label a little, train, predict the rest, queue what is most worth a look; and again. The same command goes on
    with the next step, also after an interruption."""

    data: Annotated[str, Required("photos/")] = ""
    """Images without annotations, or annotations in any format."""
    images: Path | None = None
    """Folder of the images, if the annotations do not name it."""
    format: str | None = None
    """Format of the annotations; recognised if not given."""
    model: str = ""
    """The detector that every round starts from: "builtin", a folder or a hub id."""
    names: tuple[str, ...] = ()
    """What to look for in images without annotations; the names that the model was fine-tuned on, if not given."""
    val_data: str = ""
    """Validation annotations, on which every round is measured; a part of what was reviewed is held out, if not
    given."""
    val_images: Path | None = None
    """Folder of the validation images."""
    output: Path = Path("loop")
    """Folder for review.db, loop.json and the runs."""
    per_round: AtLeast1 = 20
    """Images that are reviewed per round."""
    rounds: AtLeast1 = 3
    """Rounds until it ends."""
    order: Literal["worth", "disagreement", "uncertainty", "label_error", "novelty", "random", "file"] = "worth"
    """What is reviewed first (docs/review.md); random to compare with."""
    threshold: Share | None = None
    """Lowest score of predictions that are reviewed. If not given, what was chosen on validation data, or 0.3."""
    train_config: Path | None = None
    """YAML file with options of detect train for every round, such as epochs."""
    simulate: bool = False
    """The data is labelled in whole: its labels are hidden, and an annotator is simulated who corrects by them."""
    batch_size: AtLeast1 = 4
    """Images per batch, in prediction."""
    seed: AtLeast0 = 0
    """Random seed of training, and of --order random."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        require_model(self.model, A_DETECTOR)
        if self.simulate and not self.val_data:
            raise OptionError("--simulate needs --val-data: labels of its own to measure on")
