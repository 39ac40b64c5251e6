"""Options of `deixis config list | show`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from deixis.options.marks import Required
from deixis.options.types import Options


@dataclass(frozen=True)
class ConfigListOptions(Options):
    """List the presets: options files that come with deixis."""


@dataclass(frozen=True)
class ConfigShowOptions(Options):
    """Print a preset, to be read or copied."""

    name: Annotated[str, Required("detector_finetune")] = ""
    """The preset, as in deixis config show detector_finetune."""
