"""Data sets to ODVG JSON lines: detection and grounding."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from deixis.atomic_files import new_folder
from deixis.data.detect.grounding import locate_phrases
from deixis.data.formats.odvg.lines import lists_phrases
from deixis.data.formats.placing import ImageMode, placed
from deixis.data.sets.embedded import records
from deixis.errors import DataError
from deixis.records import Dataset, Sample


def write_odvg(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`annotations.jsonl`, `label_map.json` (for detection lines) and `images/`. Crowds are left out.

    A sample with a caption or a vocabulary of its own becomes a grounding line, one region per phrase with all its
    boxes; `tokens_positive` are the characters of the phrase in the caption, where it is found. All others become
    detection lines.

    Returns:
        the file of lines, for `read_odvg`.
    """
    del masks  # ODVG has none
    shared = shared_names(dataset)
    with new_folder(folder) as draft:
        with (draft / "annotations.jsonl").open("w", encoding="utf-8") as lines:
            for sample, name in placed(dataset, draft / "images", images, own_vocabularies=True):
                height, width = sample.size_hw
                row = {"filename": name, "height": height, "width": width}
                if is_grounding(sample, shared):
                    row |= {"grounding": _grounding(sample)}
                else:
                    row |= {"detection": {"instances": _detection(sample)}}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        if shared is not None:
            text = json.dumps({str(label): name for label, name in enumerate(shared)}, ensure_ascii=False)
            (draft / "label_map.json").write_text(text, encoding="utf-8")
    return folder / "annotations.jsonl"


def shared_names(dataset: Dataset) -> tuple[str, ...] | None:
    """The label map's names: the data set's where a sample asks for all of them, else those that most samples share."""
    counts = Counter(sample.vocabulary.names for sample in records(dataset) if not sample.caption)
    if dataset.vocabulary.names in counts:
        return dataset.vocabulary.names
    names, count = counts.most_common(1)[0] if counts else ((), 0)
    return names if count > 1 else None


def unused_phrases(dataset: Dataset, samples: Sequence[Sample]) -> list[str]:
    """A line if some samples become grounding lines and have names without a box."""
    shared = shared_names(dataset)
    grounding = [sample for sample in samples if is_grounding(sample, shared) and len(sample.instances)]
    idle = sum(len(sample.vocabulary) - len(sample.present_class_ids) for sample in grounding)
    return [f"{idle} names of grounding images without a box: odvg lists phrases by their boxes only"] if idle else []


def is_grounding(sample: Sample, shared: tuple[str, ...] | None) -> bool:
    """Whether a sample becomes a grounding line; one of which nothing is known does too, with no region."""
    nothing_known = sample.absent_class_ids is not None and not len(sample.instances)
    return bool(sample.caption) or nothing_known or sample.vocabulary.names != shared


def _detection(sample: Sample) -> list[dict[str, Any]]:
    objects = sample.instances.select(~sample.instances.is_crowd)
    return [
        {"bbox": box, "label": class_id, "category": sample.vocabulary.names[class_id]}
        for box, class_id in zip(objects.boxes_xyxy_px.tolist(), objects.class_ids.tolist(), strict=True)
    ]


def _grounding(sample: Sample) -> dict[str, Any]:
    objects = sample.instances.select(~sample.instances.is_crowd)
    present = sorted(set(objects.class_ids.tolist()))
    names = tuple(sample.vocabulary.names[i] for i in present)
    caption = sample.caption or lists_phrases(names)
    spans = {names[i]: sample.phrase_spans[c] for i, c in enumerate(present)} if sample.phrase_spans else {}
    # Where a phrase is not found, the spans stay those that came with the sample.
    with suppress(DataError):
        spans = dict(zip(names, locate_phrases(caption, names, spans), strict=True))
    regions = []
    for class_id, name in zip(present, names, strict=True):
        boxes = objects.boxes_xyxy_px[objects.class_ids == class_id].tolist()
        region: dict[str, Any] = {"bbox": boxes, "phrase": name}
        if name in spans:
            region["tokens_positive"] = [list(span) for span in spans[name]]
        regions.append(region)
    return {"caption": caption, "regions": regions}
