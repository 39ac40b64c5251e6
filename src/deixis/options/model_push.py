"""The options of `deixis model push`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from deixis.options.checks import require
from deixis.options.marks import Required
from deixis.options.types import Options


@dataclass(frozen=True)
class ModelPushOptions(Options):
    """Send a model's folder to the Hugging Face hub: its weights, configuration, tokenizer, record and card."""

    model: Annotated[str, Required("runs/raccoons")] = ""
    """A model's folder, or that of a run. Other files in it are not sent."""
    to: Annotated[str, Required("me/raccoons")] = ""
    """Repository on the hub, OWNER/NAME; it is made if it does not exist."""
    private: bool = False
    """Make a new repository private."""
    dry_run: bool = False
    """Print what would be sent."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        require(bool(re.fullmatch(r"[\w.-]+/[\w.-]+", self.to)), "to", self.to, "OWNER/NAME")
