"""GLaMM's grounded conversations (Rasheed et al., arXiv 2311.03356): captions whose phrases have masks, in three forms.

GranDf and OpenPSG: [{"file_name": "sa_1.jpg", "caption": "A dog on grass.", "groundings": {"A dog":
    {"token_positives": [0, 5], "rle_masks": [{"size": [h, w], "counts": "…"}]}}}]
RefCOCOg: [{"391895": {"img_file_name": "COCO_train2014_….jpg", "caption": "…", "refs": [{"sentence": "a dog",
    "segmentation": [[x1, y1, …]]}]}}]
Flickr: COCO's object; images have "caption", annotations "tokens_positive": [[0, 5]] and "sam_mask": an RLE
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import holds_text, parse_json, read_text, the_file
from deixis.data.formats.coco.values import image_size, whole_number
from deixis.data.formats.record import Format
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reads, shown
from deixis.data.refer.conversation import GROUNDED_QUESTIONS
from deixis.data.refer_formats.chat.entries import Entry, folders_around, image_name, json_files, locate
from deixis.data.refer_formats.entries import object_mask, opens_with, settle, warn_left_out
from deixis.errors import DataError
from deixis.records import Rle
from deixis.refer_records import Exchange, Expression, Grounded, ReferList, ReferSample

_KEYS = {"[": (("groundings", "token_positives"), ("img_file_name", "refs")), "{": (("sam_mask", "tokens_positive"),)}


@dataclass(frozen=True)
class _Phrase:
    text: str
    span: Any  # as the file gives it; None where it gives none
    segmentations: tuple[Any, ...]


@dataclass(frozen=True)
class _Row:
    """A caption, in any of the three forms."""

    where: str
    image: str
    caption: str
    size: tuple[Any, Any] | None
    phrases: tuple[_Phrase, ...]


def find_gcg(path: Path) -> list[Path]:
    """JSON files with the keys of one of the three forms."""
    return [
        file
        for file in json_files(path)
        for bracket, forms in _KEYS.items()
        if opens_with(file, bracket) and any(all(holds_text(file, f'"{key}"') for key in keys) for keys in forms)
    ]


@reads("grounded captions")
def read_gcg(path: str | Path, images: Path | None = None, faults: list[str] | None = None) -> ReferList:
    """One file of GranD-f. Training asks for the whole caption with a mask for each of its phrases; measured are the
    phrases one by one.

    Of phrases that overlap, the caption keeps the longer one; annotations of the same characters are one phrase of
    several objects.

    Raises:
        DataError: malformed JSON, missing images, masks or phrases that cannot be used.
    """
    file = the_file(path, find_gcg, "file of grounded captions")
    bad: list[str] = []
    rows = list(_rows(file, bad))
    names = [row.image for row in rows]
    found = locate(str(file), names, folders_around(file, images), faults is not None) if rows else []
    samples, silent = [], []
    for number, (row, image) in enumerate(zip(rows, found, strict=True), start=1):
        if image is None:
            bad.append(f"{row.where}: file {row.image} not found")
            continue
        try:
            sample = _sample(row, image, number, f"{file.name}: {row.where} ({row.image})")
        except (ValueError, DataError) as error:
            bad.append(f"{row.where} ({row.image}): {error}")
            continue
        if sample.expressions:
            samples.append(sample)
        else:
            silent.append(sample.source)
    settle(str(file), bad, faults)
    warn_left_out(str(file), "captions without a phrase that has a mask", silent)
    if not samples and faults is None:
        raise DataError(f"{file}: has no caption with masks; there is nothing to train on")
    return ReferList(tuple(samples), name=file.stem)


def _rows(file: Path, bad: list[str]) -> Iterator[_Row]:
    content = parse_json(read_text(file), str(file))
    if isinstance(content, dict):
        yield from _flickr(content, file, bad)
        return
    if not isinstance(content, list):
        raise DataError(f"{file}: expected a list of captions, got a {type(content).__name__}")
    for number, entry in enumerate(content, start=1):
        try:
            yield _listed(entry, f"entry {number}")
        except ValueError as error:
            bad.append(f"entry {number}: {error}")


def _listed(entry: Any, where: str) -> _Row:
    """An entry of GranDf and OpenPSG, or of RefCOCOg, which stands alone in an object by the id of its image."""
    # RefCOCOg's form: {"391895": {...}}.
    if isinstance(entry, dict) and len(entry) == 1 and isinstance(inner := next(iter(entry.values())), dict):
        entry = inner
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object, got {shown(entry)}")
    caption, size = _caption(entry), (entry.get("height"), entry.get("width"))
    phrases = []
    if "refs" in entry:
        for ref in _list(entry, "refs"):
            sentence = ref.get("sentence") if isinstance(ref, dict) else None
            if not isinstance(sentence, str) or not sentence.strip():
                raise ValueError(f"a reference needs a 'sentence', got {shown(ref)}")
            phrases.append(_Phrase(sentence.strip(), None, (ref.get("segmentation"),)))
    else:
        groundings = entry.get("groundings")
        if not isinstance(groundings, dict):
            raise ValueError(f"groundings must be an object, got {shown(groundings)}")
        for text, grounding in groundings.items():
            if not isinstance(grounding, dict) or not text.strip():
                raise ValueError(f"the grounding of {text[:40]!r} must be an object, got {shown(grounding)}")
            masks = _list(grounding, "rle_masks")
            phrases.append(_Phrase(text.strip(), grounding.get("token_positives"), tuple(masks)))
    known = None if None in size else size
    return _Row(where, image_name(entry, "file_name", "img_file_name", "image"), caption, known, tuple(phrases))


def _flickr(content: Entry, file: Path, bad: list[str]) -> Iterator[_Row]:
    rows, annotations = content.get("images"), content.get("annotations")
    if not isinstance(rows, list) or not isinstance(annotations, list):
        raise DataError(f"{file}: has no 'images' and 'annotations' as Flickr's grounded captions do")
    of_image: dict[Any, list[Entry]] = {}
    for number, annotation in enumerate(annotations, start=1):
        owner = whole_number(annotation.get("image_id")) if isinstance(annotation, dict) else None
        if owner is None:
            bad.append(f"annotation {number}: has no image_id")
        elif not annotation.get("ignore"):
            of_image.setdefault(owner, []).append(annotation)
    for number, row in enumerate(rows, start=1):
        try:
            if not isinstance(row, dict):
                raise ValueError(f"expected an object, got {shown(row)}")
            caption = _caption(row)
            phrases = tuple(_flickr_phrase(one, caption) for one in of_image.get(whole_number(row.get("id")), []))
            yield _Row(
                f"image {number}", image_name(row, "file_name"), caption, (row.get("height"), row.get("width")), phrases
            )
        except ValueError as error:
            bad.append(f"image {number}: {error}")


def _flickr_phrase(annotation: Entry, caption: str) -> _Phrase:
    spans = annotation.get("tokens_positive")
    if not isinstance(spans, list) or not spans:
        raise ValueError(f"tokens_positive must be a list of [start, end], got {shown(spans)}")
    start, end = _span(spans[0], caption)
    return _Phrase(caption[start:end], [start, end], (annotation.get("sam_mask", annotation.get("segmentation")),))


def _sample(row: _Row, image: Path, number: int, source: str) -> ReferSample:
    size_hw = _size(row, image)
    merged: dict[Any, tuple[str, list[Rle]]] = {}  # by place in the caption; by itself where it has none
    for phrase in row.phrases:
        masks = []
        for segmentation in phrase.segmentations:
            try:
                masks.append(object_mask(segmentation, size_hw))
            except ValueError as error:
                raise ValueError(f"a mask of {phrase.text[:40]!r} {error}") from error
        place = _place(phrase, row.caption)
        key = phrase.text.lower() if place is None else place
        merged.setdefault(key, (phrase.text, []))[1].extend(masks)
    found = [(key if isinstance(key, tuple) else None, *value) for key, value in merged.items()]
    found.sort(key=lambda one: one[0] or (len(row.caption), 0))  # those without a place come last
    expressions = tuple(
        Expression((text,), tuple(masks), expression_id=i) for i, (_, text, masks) in enumerate(found, 1)
    )
    grounded = _apart([Grounded(place[0], place[1], i) for i, (place, *_) in enumerate(found) if place is not None])
    chat = (Exchange(GROUNDED_QUESTIONS, row.caption, grounded),) if grounded else ()
    return ReferSample(image, size_hw, expressions, number, source, chat)


def _size(row: _Row, image: Path) -> tuple[int, int]:
    if row.size is not None:
        return image_size(*row.size)
    for phrase in row.phrases:
        for rle in phrase.segmentations:
            if isinstance(rle, dict) and isinstance(rle.get("size"), list) and len(rle["size"]) == 2:
                return image_size(*rle["size"])
    return image_sizes_hw(image)[0]


def _place(phrase: _Phrase, caption: str) -> tuple[int, int] | None:
    """The characters of a phrase: as given where the caption has the phrase there, else where it is first found, else
    as given; None where nothing is given and nothing found."""
    found = caption.lower().find(phrase.text.lower())
    searched = None if found < 0 else (found, found + len(phrase.text))
    if phrase.span is None:
        return searched
    nested = isinstance(phrase.span, list) and bool(phrase.span) and isinstance(phrase.span[0], list)
    start, end = _span(phrase.span[0] if nested else phrase.span, caption)
    same = caption[start:end].strip().lower() == phrase.text.lower()
    return (start, end) if same or searched is None else searched


def _span(value: Any, caption: str) -> tuple[int, int]:
    numbers = [whole_number(one) for one in value] if isinstance(value, list) else []
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None or not 0 <= numbers[0] < numbers[1]:
        raise ValueError(f"a phrase must be [start, end] of the caption, got {shown(value)}")
    start, end = numbers[0], min(numbers[1], len(caption))
    if not caption[start:end].strip():
        raise ValueError(f"a phrase is at {shown(value)}, the caption has {len(caption)} characters")
    return start, end


def _apart(phrases: list[Grounded]) -> tuple[Grounded, ...]:
    """Phrases that do not overlap, in order; of two that do, the longer one."""
    kept: list[Grounded] = []
    for phrase in sorted(phrases, key=lambda one: (one.start - one.end, one.start)):  # longest first
        if all(phrase.end <= other.start or other.end <= phrase.start for other in kept):
            kept.append(phrase)
    return tuple(sorted(kept))


def _caption(entry: Entry) -> str:
    caption = entry.get("caption")
    caption = caption.strip('"').strip() if isinstance(caption, str) else ""  # some captions are in quotation marks
    if not caption:
        raise ValueError(f"has no 'caption', got {shown(entry.get('caption'))}")
    return caption


def _list(entry: Entry, key: str) -> list[Any]:
    value = entry.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list, got {shown(value)}")
    return value


GCG = Format("gcg", find_gcg, read_gcg, takes=("faults",), decisive=True)
