"""Custom data as one JSON file: the layout that Sa2VA's fine-tuning reads, and a fuller one of ours (docs/formats.md).

[{"image": "a.jpg", "mask": [[[x1, y1, x2, y2, …]]], "text": ["the red cup"]}]

[{"image": "b.jpg", "expressions": [
    {"text": ["the red cup", "cup on the left"], "masks": [[[x1, y1, …]], {"size": [h, w], "counts": "…"}]},
    {"text": "a dog", "masks": []}]}]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import only_file, parse_json, read_text
from deixis.data.formats.coco.values import image_size, whole_number
from deixis.data.formats.record import Format
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reads, shown
from deixis.data.refer_formats.entries import find_images, object_mask, opens_with, sentences, settle
from deixis.errors import DataError
from deixis.refer_records import Expression, ReferList, ReferSample


def find_refer_json(path: Path) -> list[Path]:
    """The only JSON file of a folder, or a file itself, if it holds a list of image entries."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path] if path.suffix == ".json" else []
    return files if len(files) == 1 and opens_with(files[0], "[") else []


@reads("phrases and masks")
def read_refer_json(path: str | Path, images: Path | None = None, faults: list[str] | None = None) -> ReferList:
    """A JSON list of images with phrases and masks.

    An image is either `image, mask, text`, one mask (a list of polygons, or an RLE) for each text, or `image,
    expressions`, where an expression has `text` (a sentence or several that mean the same), `masks` (one per object;
    none: the phrase means nothing in the image), and if you like `tags` and `id`. `height`, `width` and `id` of the
    image may be given. Masks may be polygons or RLE in either.

    Args:
        images: the folder that `image` is relative to; by default the file's own, or `images` beside it.

    Raises:
        DataError: malformed JSON, missing images, or entries that cannot be used: masks and texts that differ in
            number, a mask of another size or without a pixel, a blank sentence.
    """
    file = Path(path)
    if file.is_dir():
        file = only_file(sorted(file.glob("*.json")), file, "JSON file")
    entries = _entries(file)
    bad: list[str] = []
    named = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"]:
            bad.append(f"entry {number}: has no 'image', the name of its file")
        else:
            named.append((number, entry))
    folders = [images] if images is not None else [file.parent, file.parent / "images", file.parent.parent / "images"]
    names = [entry["image"] for _, entry in named]
    paths = find_images(str(file), names, folders, faults is not None) if named else []
    samples = []
    for (number, entry), image in zip(named, paths, strict=True):
        where = f"entry {number} ({entry['image']})"
        if image is None:
            bad.append(f"{where}: image file not found")
            continue
        try:
            size_hw = _size(entry, image)
        except (ValueError, DataError) as error:
            bad.append(f"{where}: {error}")
            continue
        expressions = _expressions(entry, size_hw, where, bad)
        if expressions:
            identity = whole_number(entry.get("id"))
            image_id = number if identity is None else identity
            samples.append(ReferSample(image, size_hw, tuple(expressions), image_id, f"{file.name}: {where}"))
    settle(str(file), bad, faults)
    if not samples and faults is None:
        raise DataError(f"{file}: has no entry; there is nothing to train on or evaluate")
    return ReferList(tuple(samples), name=file.stem)


def _entries(file: Path) -> list[Any]:
    content = parse_json(read_text(file), str(file))
    if not isinstance(content, list):
        raise DataError(f"{file}: expected a list of images with 'expressions', or with 'mask' and 'text'")
    return content


def _size(entry: Mapping[str, Any], image: Path) -> tuple[int, int]:
    """As annotated, else that of the upright picture."""
    if entry.get("height") is None and entry.get("width") is None:
        return image_sizes_hw(image)[0]
    return image_size(entry.get("height"), entry.get("width"))


def _expressions(entry: Mapping[str, Any], size_hw: tuple[int, int], where: str, bad: list[str]) -> list[Expression]:
    items = entry.get("expressions", entry.get("text"))
    if isinstance(items, str):
        items = [items]
    if not isinstance(items, list) or not items:
        bad.append(f"{where}: has neither 'expressions' nor 'mask' and 'text'")
        return []
    if "expressions" not in entry:
        masks = entry.get("mask")
        if not isinstance(masks, list) or len(masks) != len(items):
            count = len(masks) if isinstance(masks, list) else "no"
            bad.append(f"{where}: {count} masks for {len(items)} texts; each text needs a mask")
            return []
        # Sa2VA's form as ours
        items = [{"text": text, "masks": [mask]} for text, mask in zip(items, masks, strict=True)]
    expressions = []
    for number, item in enumerate(items, start=1):
        try:
            expressions.append(_expression(item, number, size_hw))
        except ValueError as error:
            bad.append(f"{where}: text {number}: {error}")
    return expressions


def _expression(item: Any, number: int, size_hw: tuple[int, int]) -> Expression:
    if not isinstance(item, dict) or not isinstance(item.get("masks"), list):
        raise ValueError("expected an object with 'text' and 'masks', a list of one mask per object")
    masks = []
    for position, mask in enumerate(item["masks"], start=1):
        try:
            masks.append(object_mask(mask, size_hw))
        except ValueError as error:
            raise ValueError(f"mask {position} {error}") from error
    tags, identity = item.get("tags", []), item.get("id", number)
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"tags must be a list of words, got {shown(tags)}")
    expression_id = whole_number(identity)
    if expression_id is None:
        raise ValueError(f"id must be a whole number, got {shown(identity)}")
    texts = () if item.get("text") is None and masks else sentences(item.get("text"))  # a mask that awaits a caption
    return Expression(texts, tuple(masks), tuple(tags), expression_id)


REFER_JSON = Format("refer_json", find_refer_json, read_refer_json, takes=("faults",), decisive=True)
