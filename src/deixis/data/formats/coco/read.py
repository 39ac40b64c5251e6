"""COCO's instances JSON (Lin et al., arXiv 1405.0312), as COCO, CVAT, Label Studio, Roboflow and others write it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.data.findings import Findings
from deixis.data.formats.annotation_files import (
    clip_instances,
    holds_text,
    parse_json,
    read_text,
    require_located,
    the_file,
    warn_dropped,
)
from deixis.data.formats.coco.objects import gather
from deixis.data.formats.coco.rows import in_pixels, settle_ids, with_boxes, without_root
from deixis.data.formats.coco.sieve import sieve
from deixis.data.formats.coco.values import image_size, integer_ids
from deixis.data.formats.find_images import locate_beside, warn_loose
from deixis.data.formats.foreign import foreign_file
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reads
from deixis.errors import DataError
from deixis.records import Sample, SampleList, Vocabulary
from deixis.text import clean_name


def find_coco(path: Path) -> list[Path]:
    """The JSON files of a folder and of its `annotations` that may be COCO's; others are beside many exports.

    A JSON file itself, if no other tool is known to write the like.
    """
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".json" and (_may_be_coco(path) or foreign_file(path) is None) else []
    files = sorted(file for place in (path, path / "annotations") for file in place.glob("*.json"))
    return [file for file in files if not is_left_by_macos(file) and _may_be_coco(file)]


def _may_be_coco(file: Path) -> bool:
    return holds_text(file, '"images"') and not holds_text(file, '"segments_info"')


def coco_file(path: Path) -> Path:
    """The only COCO file of a folder or of its `annotations`; a file as it is.

    Raises:
        DataError: there is none, or there are several.
    """
    return the_file(path, find_coco, "COCO JSON file")


@reads("COCO annotations")
def read_coco(
    path: str | Path, images: Path | None = None, masks: bool = True, findings: Findings | None = None
) -> SampleList:
    """A COCO JSON file.

    Images without annotations are kept, crowd regions are flagged, categories without objects stay in the
    vocabulary (except one that repeats the name of a used category, as Roboflow's exports have). Boxes are clipped
    to their image; those left without area are dropped with a warning that counts them. An image without width and
    height takes them from its file. Ids may be any; where image ids are not whole numbers, images are numbered.

    Args:
        images: the folder `file_name` is relative to; by default the likely ones around the JSON file are tried.
        masks: turn polygons and RLE into `Instances.masks_rle`, for the images whose objects all have one.

    Raises:
        DataError: malformed JSON, missing keys, duplicate or unknown ids, boxes that are no boxes, missing images,
            an empty data set.
    """
    path = coco_file(Path(path))
    return samples_of(path, parse_coco(path, findings is None), images, masks, findings)


def samples_of(
    path: Path, content: dict[str, Any], images: Path | None, masks: bool, findings: Findings | None = None
) -> SampleList:
    """The data set that parsed content describes; samples in the order of `content["images"]`. See `read_coco`."""
    content |= settle_ids(content)
    if findings is not None:
        names = [row.get("file_name") for row in content["images"] if isinstance(row, dict)]
        content |= sieve(path, content, lambda rows: locate_beside(path, _names(rows), images)[0], findings)
        # No picture is left: look again without findings, for the error that says where they were looked for.
        if not content["images"] and {"image_missing", "image_misplaced"} & {one.kind for one in findings.found}:
            _find_images(
                path, [{"id": 0, "file_name": name} for name in names if isinstance(name, str) and name], images
            )
        if content["images"] and not content["categories"]:
            raise DataError(f"{path}: no category has an id and a name; correct 'categories', or export the file again")
        _require_rows(content, path)
    image_ids = _ids(content["images"], "image", path)
    category_ids = _ids(content["categories"], "category", path)
    used = {
        item.get("category_id") for item in content["annotations"] if isinstance(item.get("category_id"), int | str)
    }
    categories = _without_repeats(without_root(content["categories"], used, str(path)), used, path)
    vocabulary = _vocabulary(categories, category_ids, path)
    paths = _find_images(path, content["images"], images)
    sizes = [_size(item, image, path) for item, image in zip(content["images"], paths, strict=True)]
    rows = {item["id"]: row for row, item in enumerate(content["images"])}
    sizes_by_id = {item["id"]: size_hw for item, size_hw in zip(content["images"], sizes, strict=True)}
    annotations, _ = in_pixels(with_boxes(content["annotations"]), sizes_by_id, str(path))
    classes = {item["id"]: row for row, item in enumerate(categories)}
    objects = gather(annotations, rows, classes, sizes if masks else None, path, findings)
    samples, dropped = [], []
    for item, image, size_hw, found in zip(content["images"], paths, sizes, objects, strict=True):
        source = f"{path.name}: image {item['id']}"
        instances, lost = clip_instances(found.instances(), size_hw, keep_all=findings is not None)
        dropped += [source] * lost
        if findings is not None:
            findings.object_places[source] = found.places
        samples.append(Sample(image, size_hw, instances, vocabulary, image_ids[item["id"]], source))
    warn_dropped(str(path), dropped)
    return SampleList(tuple(samples), vocabulary, name=path.stem)


def parse_coco(path: Path, strict: bool = True) -> dict[str, Any]:
    """The file's content, with its three lists checked to be lists; of objects, if `strict`.

    Raises:
        DataError: it cannot be read, is no JSON, or lacks a list.
    """
    content = parse_json(read_text(path), str(path))
    if not isinstance(content, dict) or "images" not in content:
        what = foreign_file(path)
        if what is not None:
            raise DataError(f"{path}: is {what}")
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not COCO's object with images and annotations")
    for key in ("images", "annotations", "categories"):
        rows = content.get(key)
        if not isinstance(rows, list) or (strict and not all(isinstance(row, dict) for row in rows)):
            raise DataError(
                f"{path}: has no list of objects under {key!r}; a COCO file needs images, annotations, categories"
            )
    _require_rows(content, path)
    return content


def _require_rows(content: Mapping[str, Any], path: Path) -> None:
    for key in ("images", "categories"):
        if not content[key]:
            raise DataError(f"{path}: {key!r} is empty; there is nothing to train on or evaluate")


def _ids(rows: Sequence[Mapping[str, Any]], what: str, path: Path) -> dict[Any, int]:
    """The id each row gives itself to the integer deixis uses."""
    for number, row in enumerate(rows):
        if not isinstance(row.get("id"), int | str) or isinstance(row.get("id"), bool):
            raise DataError(f"{path}: {what} number {number + 1} has no usable id, got {row.get('id')!r}")
    ids = [row["id"] for row in rows]
    if len(set(ids)) < len(ids):
        seen: set[Any] = set()
        double = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise DataError(f"{path}: {what} id {double!r} occurs more than once; ids must differ")
    numbered, as_given = integer_ids(ids)
    if not as_given:
        warnings.warn(f"{path}: {what} ids are not whole numbers; numbered from 1 instead", stacklevel=3)
    return numbered


def _without_repeats(rows: list[dict[str, Any]], used: set[Any], path: Path) -> list[dict[str, Any]]:
    """Categories without the unused ones that repeat a used one's name in any case."""
    used_names = {str(row.get("name")).strip().lower() for row in rows if row["id"] in used}
    repeats = [row for row in rows if row["id"] not in used and str(row.get("name")).strip().lower() in used_names]
    if repeats:
        warnings.warn(f"{path}: left out categories {repeats}: unused, and named as a used one", stacklevel=3)
    left_out = {row["id"] for row in repeats}
    return [row for row in rows if row["id"] not in left_out]


def _vocabulary(rows: Iterable[Mapping[str, Any]], ids: Mapping[Any, int], path: Path) -> Vocabulary:
    rows = list(rows)
    for row in rows:
        if not isinstance(row.get("name"), str):
            raise DataError(f"{path}: category {row['id']!r} has no name, got {row.get('name')!r}")
    try:
        return Vocabulary(tuple(clean_name(row["name"]) for row in rows), tuple(ids[row["id"]] for row in rows))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _find_images(path: Path, rows: Sequence[Mapping[str, Any]], images: Path | None) -> list[Path]:
    for row in rows:
        if not isinstance(row.get("file_name"), str) or not row["file_name"]:
            raise DataError(f"{path}: image {row['id']!r} has no file_name, got {row.get('file_name')!r}")
    located, searched = locate_beside(path, _names(rows), images)
    require_located(str(path), _names(rows), located, searched)
    warn_loose(str(path), located.loose)
    return [image for image in located.files if image is not None]


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return [row["file_name"] for row in rows]


def _size(row: Mapping[str, Any], image: Path, path: Path) -> tuple[int, int]:
    height, width = row.get("height"), row.get("width")
    if height is None or width is None:
        return image_sizes_hw(image)[0]
    try:
        return image_size(height, width)
    except ValueError as error:
        raise DataError(f"{path}: image {row['id']!r}: {error}") from error
