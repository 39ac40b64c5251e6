"""RefCOCO, RefCOCO+ (Yu et al. 2016) and RefCOCOg (Mao et al. 2016): phrases people wrote for objects of COCO.

gRefCOCO (Liu et al., arXiv 2306.00968) has the same files but for `grefs(unc).json` (or `.p`): a reference means any
number of objects, `"ann_id": [12, 15]`, or none, `[-1]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import parse_json, read_text
from deixis.data.formats.coco.read import parse_coco
from deixis.data.formats.coco.values import image_size, whole_number
from deixis.data.formats.record import Format
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reading, reads, shown
from deixis.data.refer_formats.entries import find_images, object_mask, sentences, settle
from deixis.data.refer_formats.plain_pickle import load_plain_pickle
from deixis.errors import DataError
from deixis.refer_records import Expression, ReferList, ReferSample

ALL = "all"
_PREFERRED = ("refs(unc).p", "refs(umd).p")  # the partitions that results are given for
_NO_TARGET = -1  # gRefCOCO's id of an object that is not there
_KEYS = ("ref_id", "ann_id", "image_id", "split", "sentences")
_IMAGE_FOLDERS = (
    "",
    "train2014",
    "images",
    "images/train2014",
    "images/mscoco/images/train2014",
    "coco/train2014",
    "mscoco/train2014",
    "coco2014/train2014",
)
_Row = Mapping[str, Any]


def find_refs_file(folder: Path) -> Path | None:
    """The file of references in a folder: UNC's partition, else UMD's, else the only one there is."""
    for name in _PREFERRED:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("refs(*).p")) or find_grefcoco(folder)
    return others[0] if len(others) == 1 else None


def find_refcoco(path: Path) -> list[Path]:
    """The files of references in a folder; or such a file itself."""
    if path.is_dir():
        return sorted(path.glob("refs(*).p"))
    return [path] if path.suffix == ".p" else []


def find_grefcoco(path: Path) -> list[Path]:
    """gRefCOCO's file of references in a folder, the pickle before the JSON; or such a file itself."""
    if not path.is_dir():
        return [path] if path.name.startswith("grefs(") and path.suffix in (".p", ".json") else []
    return (sorted(path.glob("grefs(*).p")) or sorted(path.glob("grefs(*).json")))[:1]


def read_grefcoco(
    path: str | Path, images: Path | None = None, split: str | None = None, faults: list[str] | None = None
) -> ReferList:
    """gRefCOCO, as `read_refcoco` reads it, of a folder that may hold RefCOCO's references too.

    Raises:
        DataError: as `read_refcoco`.
    """
    return read_refcoco(next(iter(find_grefcoco(Path(path))), path), images, split, faults)


@reads("RefCOCO references")
def read_refcoco(
    path: str | Path, images: Path | None = None, split: str | None = None, faults: list[str] | None = None
) -> ReferList:
    """One split of a folder with `refs(….).p` and `instances.json`, or of the `.p` file itself.

    Every reference is an expression with all its sentences; references to the same object stay apart. One of gRefCOCO
    may mean several objects, or none. Samples are the images that the split refers to, in the order of the file.

    Args:
        images: COCO's train2014; by default the likely places around the folder are tried.
        split: `train`, `val`, `testA`, `testB`, `test`, or `all`. May be left out where there is only one.

    Raises:
        DataError: files missing or damaged, a pickle that is not plain, no such split, references that cannot be used.
    """
    file = Path(path)
    if file.is_dir():
        found = find_refs_file(file)
        if found is None:
            raise DataError(f"{file}: expected refs(unc).p or refs(umd).p in it; give the .p file itself")
        file = found
    with reading(file, "RefCOCO references"):
        refs = _of_split(file, _references(file), split)
    instances = file.parent / "instances.json"
    with reading(instances, "COCO annotations"):
        rows, annotations = _instances(instances, {ref["image_id"] for ref in refs})
    by_image: dict[int, list[_Row]] = {}
    bad = []
    for ref in refs:
        if ref["image_id"] in rows:
            by_image.setdefault(ref["image_id"], []).append(ref)
        else:
            bad.append(f"reference {ref['ref_id']}: image {ref['image_id']} is not in instances.json")
    samples = _samples(file, by_image, rows, annotations, images, bad, faults is not None)
    settle(str(file), bad, faults)
    return ReferList(tuple(samples), name=f"{file.resolve().parent.name} {split or ''}".strip())


@reads("RefCOCO references")
def splits_of(path: str | Path) -> dict[str, int]:
    """The splits of a folder or a `.p` file, and how many references each has.

    Raises:
        DataError: there is no file of references, or a damaged one.
    """
    file = find_refs_file(Path(path)) if Path(path).is_dir() else Path(path)
    if file is None:
        raise DataError(f"{path}: expected refs(unc).p or refs(umd).p in it; give the .p file itself")
    return dict(Counter(ref["split"] for ref in _references(file)))


def _references(file: Path) -> list[dict[str, Any]]:
    refs = parse_json(read_text(file), str(file)) if file.suffix == ".json" else load_plain_pickle(file)
    if not isinstance(refs, list) or not refs or not all(isinstance(ref, dict) for ref in refs):
        raise DataError(f"{file}: holds no list of references, as RefCOCO's files do")
    return [_reference(ref, f"{file}: reference number {number}") for number, ref in enumerate(refs, 1)]


def _reference(ref: dict[Any, Any], where: str) -> dict[str, Any]:
    """What is used of a reference: its ids as whole numbers, its split as text, its sentences as they stand."""
    absent = [key for key in _KEYS if key not in ref]
    if absent:
        raise DataError(f"{where} has no {', '.join(absent)}")
    ids = {key: whole_number(ref[key]) for key in ("ref_id", "image_id")}
    meant = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    ann_ids = [whole_number(value) for value in meant]
    for key, value in (*ids.items(), *(("ann_id", value) for value in ann_ids)):
        if value is None:
            raise DataError(f"{where}: {key} must be a whole number, got {shown(ref[key])}; get the file again")
    if not isinstance(ref["split"], str):
        raise DataError(f"{where}: split must be a name, such as val, got {shown(ref['split'])}; get the file again")
    there = tuple(value for value in ann_ids if value != _NO_TARGET)
    return {**ids, "ann_ids": there, "split": ref["split"], "sentences": ref["sentences"]}


def _instances(file: Path, wanted: set[int]) -> tuple[dict[int, _Row], dict[int, _Row]]:
    """The rows of the images that are asked for, by id, and their annotations by id."""
    content = parse_coco(file)
    rows = {number: row for row in content["images"] if (number := whole_number(row.get("id"))) in wanted}
    annotations = {}
    for row in content["annotations"]:
        number = whole_number(row.get("id"))
        if number is not None and whole_number(row.get("image_id")) in wanted:
            annotations[number] = row
    return {number: row for number, row in rows.items() if number is not None}, annotations


def _of_split(file: Path, refs: list[dict[str, Any]], split: str | None) -> list[dict[str, Any]]:
    splits = Counter(ref["split"] for ref in refs)
    if split == ALL or (split is None and len(splits) == 1):
        return refs
    if split not in splits:
        known = ", ".join(f"{name} ({count})" for name, count in splits.items())
        asked = "name the split to read" if split is None else f"there is no split {split!r}"
        raise DataError(f"{file}: {asked}, one of {known}, as in --data '{file.parent}#{next(iter(splits))}'")
    return [ref for ref in refs if ref["split"] == split]


def _samples(
    file: Path,
    by_image: Mapping[int, Sequence[_Row]],
    rows: Mapping[int, _Row],
    annotations: Mapping[int, _Row],
    images: Path | None,
    bad: list[str],
    some_missing: bool,
) -> list[ReferSample]:
    names = [str(rows[image_id].get("file_name")) for image_id in by_image]
    folders = [images] if images is not None else _likely_folders(file.resolve().parent)
    paths = find_images(str(file), names, folders, some_missing) if names else []
    samples = []
    for (image_id, refs), image in zip(by_image.items(), paths, strict=True):
        if image is None:
            bad.append(f"image {image_id}: file {rows[image_id].get('file_name')} not found")
            continue
        try:
            size_hw = _size(rows[image_id], image)
        except (ValueError, DataError) as error:
            bad.append(f"image {image_id}: {error}")
            continue
        expressions = []
        for ref in refs:
            try:
                expressions.append(_expression(ref, annotations, size_hw))
            except ValueError as error:
                bad.append(f"reference {ref['ref_id']}: {error}")
        if expressions:
            source = f"{file.parent.name}/{file.name}: image {image_id}"
            samples.append(ReferSample(image, size_hw, tuple(expressions), image_id, source))
    return samples


def _expression(ref: _Row, annotations: Mapping[int, _Row], size_hw: tuple[int, int]) -> Expression:
    if not isinstance(ref["sentences"], list) or not all(isinstance(item, dict) for item in ref["sentences"]):
        raise ValueError("sentences are no list of objects")
    # `sent` is cleaned, `raw` as it was typed
    texts = sentences([item.get("sent") or item.get("raw") or "" for item in ref["sentences"]])
    masks = []
    for ann_id in ref["ann_ids"]:
        annotation = annotations.get(ann_id)
        if annotation is None or whole_number(annotation.get("image_id")) != ref["image_id"]:
            raise ValueError(f"annotation {ann_id} of image {ref['image_id']} is not in instances.json")
        try:
            masks.append(object_mask(annotation.get("segmentation"), size_hw))
        except ValueError as error:
            raise ValueError(f"segmentation of annotation {ann_id} {error}") from error
    return Expression(texts, tuple(masks), () if masks else ("absent",), ref["ref_id"])


def _size(row: _Row, image: Path) -> tuple[int, int]:
    height, width = row.get("height"), row.get("width")
    return image_size(height, width) if height and width else image_sizes_hw(image)[0]


def _likely_folders(home: Path) -> list[Path]:
    """Where people put COCO's train2014 beside a folder of references."""
    places = [place / name for place in (home, home.parent, home.parent.parent) for name in _IMAGE_FOLDERS]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


REFCOCO = Format("refcoco", find_refcoco, read_refcoco, takes=("split", "faults"), decisive=True)
GREFCOCO = Format("grefcoco", find_grefcoco, read_grefcoco, takes=("split", "faults"), decisive=True)
