"""`deixis data check | convert | split | stats`."""

from __future__ import annotations

from collections.abc import Sequence

from deixis.cli.arguments import parse
from deixis.recipes.data_options import DataCheckOptions, DataConvertOptions

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


def convert(arguments: Sequence[str]) -> int:
    """Turn annotations of one format into another."""
    options = parse(DataConvertOptions, arguments, "data convert", CONVERT_EXAMPLES)
    options.check()
    from deixis.recipes.convert_data import convert_data

    convert_data(options)
    return 0


def check(arguments: Sequence[str]) -> int:
    """Find what is wrong with a data set."""
    options = parse(DataCheckOptions, arguments, "data check", CHECK_EXAMPLES)
    options.check()
    from deixis.recipes.check_data import check_data

    return check_data(options)
