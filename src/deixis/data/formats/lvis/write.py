"""Data sets to LVIS JSON."""

from __future__ import annotations

import json
from pathlib import Path

from deixis.atomic_files import new_folder
from deixis.data.formats.coco.write import annotation_rows, empty_content, image_row
from deixis.data.formats.lvis.read import NEGATIVE, NOT_EXHAUSTIVE
from deixis.data.formats.placing import ImageMode, placed
from deixis.errors import DataError
from deixis.records import Dataset, Sample


def write_lvis(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`lvis.json` and `images/`. Blanks in names become `_`, as LVIS writes them.

    LVIS has no crowds: they are left out, and their class is said to be annotated not exhaustively there.

    Returns:
        the file, for `read_lvis`.
    """
    names = [name.replace(" ", "_") for name in dataset.vocabulary.names]
    if len(set(names)) < len(names):
        raise DataError("class names differ only in blanks and '_', which LVIS does not tell apart; rename them")
    with new_folder(folder) as draft:
        content = empty_content(dataset.vocabulary)
        for row in content["categories"]:
            row["name"] = row["name"].replace(" ", "_")
        for sample, name in placed(dataset, draft / "images", images):
            sample = _crowds_as_not_exhaustive(sample)
            ids = sample.vocabulary.category_ids
            row = image_row(sample, name)
            row[NEGATIVE] = [ids[i] for i in sorted(sample.known_absent_class_ids)]
            row[NOT_EXHAUSTIVE] = [ids[i] for i in sorted(sample.not_exhaustive_class_ids)]
            content["images"].append(row)
            rows = annotation_rows(sample, len(content["annotations"]) + 1, masks)
            content["annotations"] += [{k: v for k, v in row.items() if k != "iscrowd"} for row in rows]
        (draft / "lvis.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder / "lvis.json"


def _crowds_as_not_exhaustive(sample: Sample) -> Sample:
    crowd = sample.instances.is_crowd
    if not crowd.any():
        return sample
    return sample.evolve(
        instances=sample.instances.select(~crowd),
        absent_class_ids=sample.known_absent_class_ids,
        not_exhaustive_class_ids=sample.not_exhaustive_class_ids | set(sample.instances.class_ids[crowd].tolist()),
    )
