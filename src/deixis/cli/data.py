"""`deixis data check | convert | split | stats`."""

from __future__ import annotations

from collections.abc import Sequence

from deixis.cli.arguments import parse
from deixis.options.data import DataCheckOptions, DataConvertOptions, DataSplitOptions, DataStatsOptions

CHECK_EXAMPLES = """
Examples:
  deixis data check --data labels.json --images photos/
  deixis data check --data train.json --val-data val.json --model IDEA-Research/grounding-dino-tiny
  deixis data check --data annotations/ --fix cleaned/         and then: deixis detect train --data cleaned/
  deixis data check --data data.yaml --split train --json > findings.json

Exit codes: 0 no errors (warnings and notes may stand), or --fix mended them all; 1 there are errors;
2 nothing can be read of the data, told in one line.
"""

CONVERT_EXAMPLES = """
Examples:
  deixis data convert --data labelme/ --to coco --output converted/
  deixis data convert --data data.yaml --split val --to odvg --output val_odvg/
  deixis data convert --data labels.json --images photos/ --to yolo --output yolo/ --image-files link
  deixis data convert --data lvis.json --to voc --dry-run           says what would be lost, writes nothing
"""

SPLIT_EXAMPLES = """
Examples:
  deixis data split --data labels.json --val 0.2 --output parts/       parts/train/ and parts/val/, images linked
  deixis data split --data annotations/ --fractions 0.8 0.1 0.1 --output parts/ --to coco
"""

STATS_EXAMPLES = """
Examples:
  deixis data stats --data labels.json --images photos/
  deixis data stats --data data.yaml --split val --output val.html --pictures 24
"""


def convert(arguments: Sequence[str]) -> int:
    """Turn annotations of one format into another."""
    options = parse(DataConvertOptions, arguments, "data convert", CONVERT_EXAMPLES)
    options.check()
    from deixis.recipes.data.convert import convert_data

    convert_data(options)
    return 0


def check(arguments: Sequence[str]) -> int:
    """Find what is wrong with a data set."""
    options = parse(DataCheckOptions, arguments, "data check", CHECK_EXAMPLES)
    options.check()
    from deixis.recipes.data.check import check_data

    return check_data(options)


def split(arguments: Sequence[str]) -> int:
    """Split a data set in parts."""
    options = parse(DataSplitOptions, arguments, "data split", SPLIT_EXAMPLES)
    options.check()
    from deixis.recipes.data.split import split_data

    split_data(options)
    return 0


def stats(arguments: Sequence[str]) -> int:
    """Count a data set and show it."""
    options = parse(DataStatsOptions, arguments, "data stats", STATS_EXAMPLES)
    options.check()
    from deixis.recipes.data.stats import describe_data

    describe_data(options)
    return 0
