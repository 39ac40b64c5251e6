"""Describe Anything (Lian et al., arXiv 2504.16072): a detailed caption for each of many masks.

COCOStuff/annotations.json: {"391895": [{"ann_id": 1, "img_id": 391895, "image": "000000391895.jpg",
    "tar_file": "0.tar", "mask_rle": {"size": [360, 640], "counts": "…"}, "caption": "A man in a red shirt …"}]}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import holds_text, parse_object, read_text, the_file
from deixis.data.formats.coco.values import image_size, whole_number
from deixis.data.formats.record import Format
from deixis.data.reading import reads, shown
from deixis.data.refer_formats.chat.entries import folders_around, image_name, json_files, locate
from deixis.data.refer_formats.entries import object_mask, opens_with, sentences, settle
from deixis.errors import DataError
from deixis.refer_records import Expression, ReferList, ReferSample


def find_describe_anything(path: Path) -> list[Path]:
    """JSON objects with captions of masks."""
    return [
        file
        for file in json_files(path)
        if opens_with(file, "{") and holds_text(file, '"mask_rle"') and holds_text(file, '"caption"')
    ]


@reads("descriptions of masks")
def read_describe_anything(path: str | Path, images: Path | None = None, faults: list[str] | None = None) -> ReferList:
    """`annotations.json` of one part of the data set, or that part's folder. Its images come in archives, to be
    unpacked first: `tar -xf images/0.tar -C images`.

    Args:
        images: the folder of the images; by default `images` beside the file.

    Raises:
        DataError: malformed JSON, missing images, or regions that cannot be used.
    """
    file = the_file(path, find_describe_anything, "annotations.json")
    bad: list[str] = []
    named = []
    for key, regions in parse_object(read_text(file), str(file)).items():
        try:
            if not isinstance(regions, list) or not regions or not all(isinstance(one, dict) for one in regions):
                raise ValueError(f"expected a list of regions, got {shown(regions)}")
            named.append((key, regions, image_name(regions[0], "image", "file_name")))
        except ValueError as error:
            bad.append(f"image {key[:40]}: {error}")
    names = [name for *_, name in named]
    found = locate(_with_hint(file, images), names, folders_around(file, images), faults is not None) if named else []
    samples = []
    for number, ((key, regions, name), image) in enumerate(zip(named, found, strict=True), start=1):
        if image is None:
            bad.append(f"image {key[:40]}: file {name} not found")
            continue
        sample = _sample(key, regions, image, number, file.name, bad)
        samples += [sample] if sample is not None else []
    settle(str(file), bad, faults)
    if not samples and faults is None:
        raise DataError(f"{file}: has no caption; there is nothing to train on")
    return ReferList(tuple(samples), name=file.resolve().parent.name)


def _with_hint(file: Path, images: Path | None) -> str:
    archive = next(iter(sorted((images or file.parent / "images").glob("*.tar"))), None)
    return str(file) if archive is None else f"{file}: unpack {archive} and its like first"


def _sample(key: str, regions: list[Any], image: Path, number: int, file: str, bad: list[str]) -> ReferSample | None:
    expressions = []
    size_hw = None
    for position, region in enumerate(regions, start=1):
        try:
            rle = region.get("mask_rle", region.get("segmentation"))
            size = rle.get("size") if isinstance(rle, dict) else None
            if not isinstance(size, list) or len(size) != 2:
                raise ValueError(f"mask_rle must be an RLE with its size, got {shown(rle)}")
            # Every region has its image's size, so that no picture is opened.
            size_hw = size_hw or image_size(*size)
            masks, ann_id = (object_mask(rle, size_hw),), whole_number(region.get("ann_id"))
            texts = sentences(region.get("caption"))
            expressions.append(Expression(texts, masks, ("description",), position if ann_id is None else ann_id))
        except ValueError as error:
            bad.append(f"image {key[:40]}, region {position}: {error}")
    if size_hw is None or not expressions:
        return None
    identity = whole_number(key)
    source = f"{file}: image {key[:40]}"
    return ReferSample(
        image, size_hw, tuple(expressions), number if identity is None else identity, source, described=True
    )


DESCRIBE_ANYTHING = Format(
    "describe_anything", find_describe_anything, read_describe_anything, takes=("faults",), decisive=True
)
