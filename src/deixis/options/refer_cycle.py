"""The options of `deixis refer cycle`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deixis.options.marks import AtLeast1, Share
from deixis.options.refer_caption import Masks


@dataclass(frozen=True)
class ReferCycleOptions(Masks):
    """Write a captioned data set from masks alone: describe each mask, segment what the caption says, and keep the
    captions that find their mask again."""

    tokenizer: str | None = None
    """Folder or hub id of a tokenizer, in place of a released Sa2VA's own, where that cannot be used."""
    output: Path = Path("cycle")
    """Folder for captions.json (what is kept, for `refer train --data`), cycle.jsonl (everything) and metrics.json.
    The same command resumes an interrupted one."""
    threshold: Share = 0.7
    """Minimum IoU of a mask with the mask that its caption gives, for the caption to be kept."""
    candidates: AtLeast1 = 1
    """Captions to try per mask: the most likely one and sampled ones; the one with the highest IoU counts."""
