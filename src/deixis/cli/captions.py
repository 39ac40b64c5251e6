"""`deixis refer caption | cycle`."""

from __future__ import annotations

from collections.abc import Sequence

from deixis.cli.arguments import parse
from deixis.options.refer_caption import ReferCaptionOptions, ReferCycleOptions

CAPTION_EXAMPLES = """
Examples:
  deixis refer caption --model runs/segmenter/teachers/sa2va --masks labels.json --images photos/
  deixis refer caption --model ByteDance/Sa2VA-4B --masks masks.json --temperature 0.7 --top-p 0.9 --output drawn/
  deixis refer caption --model new_segmenter --masks "scenes:split=refer_unseen,count=100,seed=3" --measure
"""

CYCLE_EXAMPLES = """
Examples:
  deixis refer cycle --model runs/segmenter/teachers/sa2va --masks sa1b/ --max-images 1000 --output captioned/
  deixis refer cycle --model ByteDance/Sa2VA-4B --masks instances.json --images photos/ --threshold 0.8 --candidates 4
  deixis refer train --data captioned/captions.json --model runs/segmenter/teachers/sa2va --caption-share 0.3

An interrupted run goes on when the same command is given again; another --threshold costs no new run.
"""


def caption(arguments: Sequence[str]) -> int:
    """Describe masks."""
    options = parse(ReferCaptionOptions, arguments, "refer caption", CAPTION_EXAMPLES)
    options.check()
    from deixis.recipes.refer.caption import caption_masks

    caption_masks(options)
    return 0


def cycle(arguments: Sequence[str]) -> int:
    """Caption masks and keep the captions that find them again."""
    options = parse(ReferCycleOptions, arguments, "refer cycle", CYCLE_EXAMPLES)
    options.check()
    from deixis.recipes.refer.cycle import cycle_masks

    cycle_masks(options)
    return 0
