"""`deixis annotate`."""

from __future__ import annotations

from collections.abc import Sequence

from deixis.cli.arguments import parse
from deixis.options.annotate import AnnotateOptions

EXAMPLES = """
Examples:
  deixis annotate --images photos/ --names "red car" dog
  deixis annotate --images a.jpg --names cup --detector IDEA-Research/grounding-dino-tiny --segmenter ByteDance/Sa2VA-1B
  deixis annotate --images photos/ --segmenter ByteDance/Sa2VA-4B --points 32 --output everything/
  deixis refer train --data annotated/expressions.json --model runs/segmenter/teachers/sa2va

An interrupted run goes on when the same command is given again; another --cycle-threshold costs no new run.
"""


def annotate(arguments: Sequence[str]) -> int:
    """Turn photographs into boxes, masks and captions."""
    options = parse(AnnotateOptions, arguments, "annotate", EXAMPLES)
    options.check()
    from deixis.recipes.annotate import annotate as run

    run(options)
    return 0
