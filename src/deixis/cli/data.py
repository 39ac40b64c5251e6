"""`deixis data convert`."""

from __future__ import annotations

from collections.abc import Sequence

from deixis.cli.arguments import parse
from deixis.recipes.data_options import DataConvertOptions

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
