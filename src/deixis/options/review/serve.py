"""The options of `deixis review serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deixis.options.checks import require
from deixis.options.marks import AtLeast1, Range, Required, Share
from deixis.options.serve import require_token, token_or_environment
from deixis.options.types import Options


@dataclass(frozen=True)
class ReviewServeOptions(Options):
    """Look at a data set in the browser, object by object, and correct it. Each decision is saved at once."""

    data: Annotated[str, Required("labels.json")] = ""
    """A review.db to continue, or annotations in any format (docs/formats.md) to make one from; a folder of images
    without annotations too, where --model knows what to look for."""
    images: Path | None = None
    """Folder of the images, if the annotations do not name it."""
    format: str | None = None
    """Format of the annotations; recognised if not given."""
    split: str | None = None
    """Part to read of a data set that has several, as in --split val."""
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
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own needs a token."""
    port: Annotated[int, Range(0, 65535)] = 8100
    """Port to listen on; 0 for a free one."""
    token: str = ""
    """Token that the browser asks for as a password; that of the environment variable DEIXIS_TOKEN if not given."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""

    @property
    def bearer_token(self) -> str:
        """The token given, or the environment's; empty without either."""
        return token_or_environment(self.token)

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        require(self.db.suffix in (".db", ".sqlite", ".sqlite3"), "db", self.db, "a file that ends in .db")
        require_token(self.host, self.token)
