"""The options of `deixis review serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.annotated_data import AnnotatedData
from deixis.options.checks import require
from deixis.options.marks import AtLeast1, Range, Required, Share
from deixis.options.serve import Listening


@dataclass(frozen=True)
class ReviewServeOptions(AnnotatedData, Listening):
    """Look at a data set in the browser, object by object, and correct it. Each decision is saved at once."""

    data: Annotated[str, Required("labels.json")] = ""
    """A review.db to continue, or annotations in any format (docs/formats.md) to make one from; a folder of images
    without annotations too, where --model knows what to look for."""
    db: Path = Path("review.db")
    """File of the review; it is made where it does not exist, and continued where it does."""
    model: str = ""
    """A detector: "builtin", a folder or a hub id. What it finds is reviewed too, and images where it
    disagrees with the labels come first."""
    names: tuple[str, ...] = ()
    """What to look for in a folder of images; the names that the model was fine-tuned on, if not given."""
    threshold: Share | None = None
    """Lowest score of predictions that are reviewed. If not given, what was chosen on validation data, or 0.3."""
    batch_size: AtLeast1 = 4
    """Images per batch."""
    segmenter: str = ""
    """A segmenter, whose SAM 2 makes masks by click: "builtin", a folder or a hub id."""
    port: Annotated[int, Range(0, 65535)] = 8100
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        require(self.db.suffix in (".db", ".sqlite", ".sqlite3"), "db", self.db, "a file that ends in .db")
