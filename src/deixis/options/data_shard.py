"""The options of `deixis data shard`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deixis.errors import OptionError
from deixis.options.annotated_data import AnnotatedData, ClassTools
from deixis.options.marks import Positive


@dataclass(frozen=True)
class DataShardOptions(AnnotatedData, ClassTools):
    """Write a data set as shards, large files with the images inside, which training reads without keeping an index of
    the set in memory; or compare such a folder with its checksums."""

    output: Path | None = None
    """Folder to write; it must not exist, or be empty."""
    to: Literal["parquet", "webdataset"] = "parquet"
    """parquet: files that the datasets library reads too, in the objects layout (pip install 'deixis[parquet]').
    webdataset: tars of pairs KEY.jpg and KEY.json."""
    max_shard_mb: Positive = 256.0
    """A shard ends with the image that reaches this many megabytes."""
    verify: bool = False
    """Compare every file of the folder of shards --data with its SHA-256; write nothing."""

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        if self.verify and self.output is not None:
            raise OptionError("--verify writes nothing; leave out --output")
        if not self.verify and self.output is None:
            raise OptionError("--output is required, as in --output shards/")
