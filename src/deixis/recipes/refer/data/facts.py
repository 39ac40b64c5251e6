"""A segmenter's data in a line, and as a fingerprint by which a run that resumes knows it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from deixis.data.refer_formats.chat.llava import Chats
from deixis.data.scenes.refer_scenes import ReferScenes
from deixis.data.sets.mixing import Joined
from deixis.data.sets.subset import Subset
from deixis.recipes.refer.data.splits import Source
from deixis.refer_records import Expression, ReferDataset, ReferSample
from deixis.video_records import Clip


def fingerprint(dataset: Source) -> str:
    """A short text that is the same for the same annotations of the same images, in the same order."""
    if isinstance(dataset, ReferScenes):
        return dataset.name
    if isinstance(dataset, Joined):
        return " + ".join(fingerprint(part) for part in dataset.parts)
    digest = hashlib.sha256()
    for content in _contents(dataset):
        digest.update(repr(content).encode())  # texts and masks; pixels are not read
    return f"{len(dataset)} images, {digest.hexdigest()[:12]}"


def _contents(dataset: Source) -> Iterator[tuple[object, ...]]:
    """What is annotated in each sample; conversations are taken as they stand in the file, without opening videos."""
    whole, indices = (dataset.dataset, dataset.indices) if isinstance(dataset, Subset) else (dataset, None)
    for index in range(len(dataset)) if indices is None else indices:
        yield whole.said(index) if isinstance(whole, Chats) else _content(whole[index])


def _content(sample: ReferSample | Clip) -> tuple[object, ...]:
    """What is annotated, and of what."""
    texts: list[object] = [expression.texts for expression in sample.expressions]
    if sample.chat:
        texts.append(sample.chat)
    if isinstance(sample, Clip):
        meant = [expression.masklets for expression in sample.expressions]
        tracks = [[mask and mask["counts"] for mask in masklet.masks_rle] for masklet in sample.masklets]
        return sample.video_id, sample.size_hw, sample.labelled, texts, meant, tracks
    image = sample.image.name if isinstance(sample.image, Path) else ""
    masks = [[mask["counts"] for mask in expression.masks_rle] for expression in sample.expressions]
    return image, sample.size_hw, texts, masks


def _kind(sample: ReferSample | Clip) -> str:
    if isinstance(sample, Clip):
        return "clips"
    return "images" if sample.has_image else "chats"


def facts(dataset: ReferDataset, limit: int = 500) -> str:
    """A data set in numbers, as one line."""
    count = min(len(dataset), limit)
    samples: list[ReferSample | Clip] = [dataset[index] for index in range(count)]
    phrases = sum(len(expression.texts) for sample in samples for expression in sample.expressions)
    meant = [e.masks_rle if isinstance(e, Expression) else e.masklets for sample in samples for e in sample.expressions]
    absent = sum(not objects for objects in meant)
    exchanges = sum(len(sample.chat) for sample in samples)
    kinds = {_kind(sample) for sample in samples}
    of_first = "" if count == len(dataset) else f" in the first {count:,}"
    things = f"{phrases:,} phrases, {absent:,} about nothing there{of_first}"
    talk = f", {exchanges:,} questions with answers" if exchanges else ""
    return f"{dataset.name}: {len(dataset):,} {' and '.join(sorted(kinds, reverse=True))}; {things}{talk}"
