"""The options of `deixis review push` and `deixis review pull`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deixis.errors import OptionError
from deixis.options.annotated_data import AnnotatedData
from deixis.options.marks import AtLeast1, Required, Share
from deixis.options.types import Options

KEY = "LABEL_STUDIO_API_KEY"


@dataclass(frozen=True)
class StudioOptions(Options):
    """Label Studio: where it is, and the key to it"""

    url: Annotated[str, Required("http://localhost:8080")] = ""
    """Address of Label Studio."""
    key: str = ""
    """Personal access token or legacy token; that of the environment variable LABEL_STUDIO_API_KEY if not given."""

    @property
    def api_key(self) -> str:
        """The key given, or the environment's.

        Raises:
            OptionError: neither is there.
        """
        key = self.key or os.environ.get(KEY, "")
        if not key:
            raise OptionError(f"--key is required, or {KEY}: a token of Label Studio's account settings")
        return key


@dataclass(frozen=True)
class ReviewPushOptions(AnnotatedData, StudioOptions):
    """Make a project in Label Studio: classes, images, and labels and predictions to correct there."""

    data: Annotated[str, Required("labels.json")] = ""
    """A review.db, or annotations in any format, or a folder of images, to make one from."""
    db: Path = Path("review.db")
    """File of the review; it is made where it does not exist."""
    model: str = ""
    """A detector, whose predictions are sent too: "builtin", a folder or a hub id."""
    names: tuple[str, ...] = ()
    """What to look for in a folder of images; the names that the model was fine-tuned on, if not given."""
    threshold: Share | None = None
    """Lowest score of predictions. If not given, what was chosen on validation data, or 0.3."""
    batch_size: AtLeast1 = 4
    """Images per batch."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""
    title: str = ""
    """Title of the project; the name of the review if not given."""
    masks: Literal["brush", "polygon"] = "brush"
    """How masks are drawn there; a brush keeps every pixel, a polygon the outline of the largest part."""
    count: AtLeast1 | None = None
    """Send only the first N images of the queue that nobody reviewed; all of them if not given."""
    backend: str = ""
    """Address under which Label Studio reaches deixis serve, as in http://localhost:8000/label-studio, for its click
    tools."""


@dataclass(frozen=True)
class ReviewPullOptions(StudioOptions):
    """Bring corrections of Label Studio back into the review that was pushed, with who made them."""

    db: Annotated[str, Required("review.db")] = ""
    """The review."""
    annotator: str = ""
    """Take the corrections of this person alone (an e-mail address). Without it, where several people annotated, each
    gets a review of their own beside this one."""
