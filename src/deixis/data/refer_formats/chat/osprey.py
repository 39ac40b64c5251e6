"""Osprey-724K (Yuan et al., arXiv 2312.10032): conversations about regions, and descriptions of them.

[{"file_name": "000000391895.jpg", "height": 360, "width": 640, "annotation": [{"segmentation": …}, …],
  "conversations": [{"from": "human", "value": "What does <region1> hold?"}, {"from": "gpt", "value": "A cup."}]},
 {…, "description": ["<region1>: A man in a red shirt …"]}]
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import the_file
from deixis.data.formats.record import Format
from deixis.data.reading import reads, shown
from deixis.data.refer_formats.chat.entries import (
    Entry,
    are_lists_with,
    exchanges_of,
    image_name,
    read_entries,
    size_of,
)
from deixis.data.refer_formats.entries import object_mask
from deixis.refer_records import Expression, ReferList, ReferSample

_REGION = re.compile(r"<(region\d+)>")
_DESCRIBED = re.compile(r"\s*<region(\d+)>\s*:?\s*(.*)", re.DOTALL)
_SHORT = ("short_form", "part_level")  # files of answers in a word or two
_SHORTLY = " Answer the question using a single word or phrase."


def find_osprey(path: Path) -> list[Path]:
    """JSON lists of entries with masks and conversations or descriptions."""
    return are_lists_with(path, "annotation", "segmentation", "file_name")


@reads("conversations about regions")
def read_osprey(path: str | Path, images: Path | None = None, faults: list[str] | None = None) -> ReferList:
    """One file of Osprey-724K.

    Conversations are trained on whole, with all regions of the entry. Descriptions are the texts of their masks; they
    are what the model learns to say of a mask, and never asked for themselves.

    Args:
        images: folder of COCO's images, or one with `train2017`, `train2014` and so on in it.

    Raises:
        DataError: malformed JSON, missing images, or entries that cannot be used.
    """
    file = the_file(path, find_osprey, "file of Osprey")
    suffix = _SHORTLY if any(word in file.stem for word in _SHORT) else ""
    return read_entries(
        file,
        images,
        faults,
        name_of=lambda entry: image_name(entry, "file_name", "image"),
        sample_of=partial(_sample, suffix=suffix),
    )


def _sample(entry: Entry, image: Path, number: int, source: str, suffix: str) -> ReferSample:
    size_hw = size_of(entry, image)
    masks = _masks(entry.get("annotation"), size_hw)
    described = entry.get("description", entry.get("descriptions"))
    if "conversations" in entry:
        # "<region1>" to "region1"
        chat = exchanges_of(entry["conversations"], lambda text: _REGION.sub(r"\1", text).strip(), suffix)
        expressions = tuple(Expression((), (mask,), expression_id=i) for i, mask in enumerate(masks, 1))
        return ReferSample(image, size_hw, expressions, number, source, chat, tuple(range(len(masks))))
    texts = _descriptions(described, len(masks))
    expressions = tuple(
        Expression((text,), (mask,), ("description",), i)
        for i, (text, mask) in enumerate(zip(texts, masks, strict=True), start=1)
        if text
    )
    return ReferSample(image, size_hw, expressions, number, source, described=True)


def _masks(annotations: Any, size_hw: tuple[int, int]) -> list[Any]:
    if not isinstance(annotations, list) or not annotations:
        raise ValueError(f"annotation must be a list of masks, got {shown(annotations)}")
    masks = []
    for position, annotation in enumerate(annotations, start=1):
        try:
            masks.append(object_mask(annotation.get("segmentation") if isinstance(annotation, dict) else None, size_hw))
        except ValueError as error:
            raise ValueError(f"segmentation of region {position} {error}") from error
    return masks


def _descriptions(lines: Any, count: int) -> list[str]:
    """The description of each region, without its `<region1>:`; empty where there is none."""
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"has neither conversations nor a list of descriptions, got {shown(lines)}")
    texts = [""] * count
    for position, line in enumerate(lines, start=1):
        match = _DESCRIBED.fullmatch(line)
        region, text = (int(match[1]), match[2].strip()) if match and len(match[1]) < 9 else (position, line.strip())
        if not 1 <= region <= count:
            raise ValueError(f"describes region {region}, there are {count} masks")
        texts[region - 1] = text
    if not any(texts):
        raise ValueError("all descriptions are blank")
    return texts


OSPREY = Format("osprey", find_osprey, read_osprey, takes=("faults",), decisive=True)
