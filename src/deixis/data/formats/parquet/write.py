"""Data sets to a Hugging Face parquet folder in the `objects` layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deixis.atomic_files import new_folder
from deixis.data.formats.parquet.files import INSTALL_HINT
from deixis.data.formats.placing import ImageMode, file_contents
from deixis.errors import DataError
from deixis.records import Dataset, Sample

if TYPE_CHECKING:
    from pyarrow import Schema


ROWS_PER_GROUP = 100  # what `datasets` uses for images: one row costs the reading of its group


def write_parquet(parts: Mapping[str, Dataset], folder: Path, images: ImageMode, masks: bool) -> Path:
    """`data/train-00000-of-00001.parquet` for each part, pictures inside, class names in the metadata of `datasets`.

    `val` is called `validation`, as `datasets` expects it.

    Returns:
        the folder, for `read_parquet` and `datasets.load_dataset`.

    Raises:
        DataError: pyarrow is not installed.
    """
    del masks, images  # the layout has no masks; pictures are always stored inside
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise DataError(INSTALL_HINT) from error
    next_id = 0
    with new_folder(folder) as draft:
        (draft / "data").mkdir()
        for split, dataset in parts.items():
            schema = schema_of(dataset.vocabulary.names)
            prefix = "validation" if split == "val" else split
            file = draft / "data" / f"{prefix}-00000-of-00001.parquet"
            with ParquetWriter(file, schema) as writer:
                rows: list[dict[str, Any]] = []
                for sample, name, content in file_contents(dataset):
                    rows.append(row_of(sample, name, content, next_id))
                    next_id += len(sample.instances)
                    if len(rows) == ROWS_PER_GROUP:
                        writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                        rows = []
                if rows:
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    return folder


def row_of(sample: Sample, name: str, content: bytes, first_id: int) -> dict[str, Any]:
    """A row of the layout; `first_id` is the number of its first object."""
    return {"image": {"bytes": content, "path": name}, **objects_row(sample, first_id)}


def schema_of(names: tuple[str, ...]) -> Schema:
    """The columns of the layout, class names in the metadata of `datasets`."""
    import pyarrow as pa

    objects = {
        "id": pa.int64(),
        "bbox": pa.list_(pa.float64(), 4),
        "category": pa.int64(),
        "area": pa.float64(),
        "iscrowd": pa.bool_(),
    }
    fields = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_id", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("objects", pa.struct([(key, pa.list_(kind)) for key, kind in objects.items()])),
    ]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": _features(names)}})})


def _features(names: tuple[str, ...]) -> dict[str, Any]:
    """The columns as `datasets` describes them."""

    def value(kind: str) -> dict[str, str]:
        return {"dtype": kind, "_type": "Value"}

    kinds: dict[str, Any] = {
        "id": value("int64"),
        "bbox": {"feature": value("float64"), "length": 4, "_type": "List"},
        "category": {"names": list(names), "_type": "ClassLabel"},
        "area": value("float64"),
        "iscrowd": value("bool"),
    }
    return {
        "image": {"_type": "Image"},
        "image_id": value("int64"),
        "width": value("int32"),
        "height": value("int32"),
        "objects": {key: {"feature": kind, "_type": "List"} for key, kind in kinds.items()},
    }


def objects_row(sample: Sample, first_id: int) -> dict[str, Any]:
    """An image's row without the image itself; `first_id` is the number of its first object."""
    objects = sample.instances
    height, width = sample.size_hw
    return {
        "image_id": sample.image_id,
        "width": width,
        "height": height,
        "objects": {
            "id": list(range(first_id, first_id + len(objects))),
            "bbox": [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in objects.boxes_xyxy_px.tolist()],
            "category": objects.class_ids.tolist(),
            "area": objects.areas_px.tolist(),
            "iscrowd": objects.is_crowd.tolist(),
        },
    }
