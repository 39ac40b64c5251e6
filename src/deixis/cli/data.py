"""`deixis data ...`."""

from __future__ import annotations

from deixis.cli.command import Command
from deixis.options.data_check import DataCheckOptions
from deixis.options.data_convert import DataConvertOptions
from deixis.options.data_diff import DataDiffOptions
from deixis.options.data_merge import DataMergeOptions
from deixis.options.data_shard import DataShardOptions
from deixis.options.data_slice import DataSliceOptions
from deixis.options.data_split import DataSplitOptions
from deixis.options.data_stats import DataStatsOptions

CHECK = """
Examples:
  deixis data check --data labels.json --images photos/
  deixis data check --data train.json --val-data val.json --model IDEA-Research/grounding-dino-tiny
  deixis data check --data annotations/ --fix cleaned/         and then: deixis detect train --data cleaned/
  deixis data check --data data.yaml --split train --json > findings.json

Exit codes: 0 no errors (there may be warnings and notes), or --fix repaired all of them; 1 errors were found;
2 the data cannot be read at all.
"""

CONVERT = """
Examples:
  deixis data convert --data labelme/ --to coco --output converted/
  deixis data convert --data data.yaml --split val --to odvg --output val_odvg/
  deixis data convert --data labels.json --images photos/ --to yolo --output yolo/ --image-files link
  deixis data convert --data lvis.json --to voc --dry-run           reports what would be lost, writes nothing
"""

SPLIT = """
Examples:
  deixis data split --data labels.json --output parts/                 parts/train/ and parts/val/, images linked
  deixis data split --data annotations/ --fractions 0.8 0.1 0.1 --output parts/ --to coco
"""

SLICE = """
Examples:
  deixis data slice --data labels.json --images aerial/ --slice 640 --output slices/
  deixis detect train --data slices/lvis.json ...        and then: deixis detect predict --slice 640 ...
"""

SHARD = """
Examples:
  deixis data shard labels.json --images photos/ --output shards/
  deixis data shard train_odvg.jsonl --images photos/ --output shards/ --to webdataset --max-shard-mb 512
  deixis data shard shards/ --verify
  deixis detect train --data shards/ --val-data val.json ...
"""

MERGE = """
Examples:
  deixis data merge a/labels.json b/data.yaml --output merged/
  deixis data merge a.json b.json --output merged/ --merge cat,Cats=cat --to yolo --image-files link
  deixis data merge a.json b.json c.json --output merged/ --names separate --duplicates first
"""

DIFF = """
Examples:
  deixis data diff labels_v1.json labels_v2.json
  deixis data diff before/data.yaml after/labels.json --output changes.html
  deixis data diff labels.json predictions.json --images photos/ --json > changes.json

Exit codes: 0 the two are the same, 1 they differ, 2 one of them cannot be read.
"""

STATS = """
Examples:
  deixis data stats --data labels.json --images photos/
  deixis data stats --data data.yaml --split val --output val.html --pictures 24
"""

COMMANDS = (
    Command(
        "data check",
        DataCheckOptions,
        "deixis.recipes.data.check:check_data",
        "find what is wrong with a data set, and repair it",
        CHECK,
    ),
    Command(
        "data convert",
        DataConvertOptions,
        "deixis.recipes.data.convert:convert_data",
        "convert annotations from one format to another",
        CONVERT,
    ),
    Command(
        "data split",
        DataSplitOptions,
        "deixis.recipes.data.split:split_data",
        "split a data set: duplicates stay together, classes are balanced",
        SPLIT,
    ),
    Command(
        "data slice",
        DataSliceOptions,
        "deixis.recipes.data.slice:slice_data",
        "cut large images into windows for training",
        SLICE,
    ),
    Command(
        "data shard",
        DataShardOptions,
        "deixis.recipes.data.shard:shard_data",
        "write a data set as parquet or WebDataset shards",
        SHARD,
        bare="data",
    ),
    Command(
        "data merge",
        DataMergeOptions,
        "deixis.recipes.data.merge:merge_data",
        "merge data sets of any formats into one",
        MERGE,
        bare="data",
    ),
    Command(
        "data diff",
        DataDiffOptions,
        "deixis.recipes.data.diff:diff_data",
        "report what changed between two versions of annotations",
        DIFF,
        bare="data",
    ),
    Command(
        "data stats",
        DataStatsOptions,
        "deixis.recipes.data.stats:describe_data",
        "count a data set and show it in an HTML page",
        STATS,
    ),
)
