"""LVIS (Gupta et al., arXiv 1908.03195): COCO's JSON, but each image annotated for some classes only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.atomic_files import new_folder
from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import holds_text
from deixis.data.formats.coco.read import coco_file, find_coco, parse_coco, samples_of
from deixis.data.formats.coco.write import annotation_rows, empty_content, image_row
from deixis.data.formats.placing import ImageMode, placed
from deixis.data.formats.record import Format, Holds
from deixis.data.reading import reads
from deixis.errors import DataError
from deixis.records import Dataset, Sample, SampleList

NEGATIVE, NOT_EXHAUSTIVE = "neg_category_ids", "not_exhaustive_category_ids"


def find_lvis(path: Path) -> list[Path]:
    """The JSON files of a folder that have LVIS's lists; or the file itself if it has."""
    files = find_coco(path) if path.is_dir() else [path]
    return [file for file in files if file.suffix.lower() == ".json" and _has_lists(file)]


def _has_lists(file: Path) -> bool:
    return holds_text(file, f'"{NEGATIVE}"') or holds_text(file, f'"{NOT_EXHAUSTIVE}"')


@reads("LVIS annotations")
def read_lvis(
    path: str | Path, images: Path | None = None, masks: bool = True, findings: Findings | None = None
) -> SampleList:
    """An LVIS JSON file: as `read_coco`, with what was looked for kept on each sample.

    An image's `neg_category_ids` become `Sample.absent_class_ids` and its `not_exhaustive_category_ids` become
    `Sample.not_exhaustive_class_ids`. An image without `file_name` takes the end of its `coco_url`
    (`train2017/000000391895.jpg`). Names are written with `_` for blanks in LVIS; here they have blanks.

    Raises:
        DataError: as `read_coco`, and an image whose lists are missing, name unknown categories or contradict its
            annotations.
    """
    path = coco_file(Path(path))
    content = parse_coco(path, findings is None)
    content["images"] = [_with_file_name(row) for row in content["images"]]
    content["categories"] = [_with_blanks(row) for row in content["categories"]]
    dataset = samples_of(path, content, images, masks, findings)
    classes = {category: row for row, category in enumerate(dataset.vocabulary.category_ids)}
    samples = []
    for sample, row in zip(dataset.samples, content["images"], strict=True):
        samples.append(sample)
        with collecting(findings, "record_malformed", path, f"image {row['id']}", "lists removed"):
            samples[-1] = _judged(sample, row, classes)
    return SampleList(tuple(samples), dataset.vocabulary, dataset.name)


def _with_file_name(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    url = row.get("coco_url")
    if row.get("file_name") or not isinstance(url, str):
        return row
    return row | {"file_name": "/".join(url.rsplit("/", 2)[-2:])}


def _with_blanks(row: Any) -> Any:
    name = row.get("name") if isinstance(row, dict) else None
    return row | {"name": name.replace("_", " ")} if isinstance(name, str) else row


def _judged(sample: Sample, row: Mapping[str, Any], classes: Mapping[int, int]) -> Sample:
    absent, not_exhaustive = (
        _class_ids(row.get(key), classes, f"{sample.source}: {key}") for key in (NEGATIVE, NOT_EXHAUSTIVE)
    )
    everything = len(absent | sample.present_class_ids) == len(sample.vocabulary)  # as in COCO
    return sample.evolve(absent_class_ids=None if everything else absent, not_exhaustive_class_ids=not_exhaustive)


def _class_ids(category_ids: Any, classes: Mapping[int, int], where: str) -> frozenset[int]:
    if not isinstance(category_ids, list):
        raise DataError(
            f"{where} must be a list of category ids, got {category_ids!r}; read the file as coco if it is not LVIS"
        )
    unknown = _unknown(category_ids, classes)
    if unknown:
        raise DataError(f"{where} has {unknown[:10]}, not in categories; correct the list")
    return frozenset(classes[category] for category in category_ids)


def _unknown(category_ids: Sequence[Any], classes: Mapping[int, int]) -> list[Any]:
    return [i for i in category_ids if not isinstance(i, int) or isinstance(i, bool) or i not in classes]


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
        # Stated before the crowd is gone: otherwise its class would count as looked for and absent.
        absent_class_ids=sample.known_absent_class_ids,
        not_exhaustive_class_ids=sample.not_exhaustive_class_ids | set(sample.instances.class_ids[crowd].tolist()),
    )


LVIS = Format(
    "lvis",
    find_lvis,
    read_lvis,
    takes=("masks", "findings"),
    write=write_lvis,
    holds=Holds(
        masks=True,
        areas=True,
        image_ids=True,
        category_ids=True,
        absent=True,
        not_exhaustive=True,
        underscores=False,
        scores=True,
    ),
    yields_to=("odvg", "labelme"),
)
