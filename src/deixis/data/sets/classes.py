"""A data set with some of its classes, under other names, or without small objects; what an image judges stays true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Int

from deixis.data.findings import Findings
from deixis.data.sets.embedded import changed, records
from deixis.errors import DataError
from deixis.records import Dataset, Sample, Vocabulary
from deixis.text import listed

_NAMED = 8
_KEPT, _OTHER_CLASS, _SMALL, _LOW = range(4)


def with_classes(
    dataset: Dataset,
    used: Mapping[str, str] | None = None,
    *,
    min_area_px: float = 0.0,
    min_score: float | None = None,
    findings: Findings | None = None,
) -> tuple[Dataset, list[str]]:
    """The data set with the classes that are used, and what became of the others, one line each.

    Images stay, those without any object left too: they show none of the classes that are used.

    Args:
        used: from `settle_names`; all classes as they are if None.
        min_area_px: smaller objects are left out, in square pixels. The image then no longer judges their classes.
        min_score: objects of lower score are left out; those without a score stay.
        findings: read with the data set; its places of objects are kept in step.

    Raises:
        DataError: the data set has none of the classes.
    """
    used = {name: name for name in dataset.vocabulary.names} if used is None else used
    name = str(getattr(dataset, "name", "data"))
    vocabulary = _vocabulary(dataset.vocabulary, used, name)
    if findings is not None:
        for sample in records(dataset):
            places = findings.object_places.get(sample.source)
            if places is not None and len(places) == len(sample.instances):
                keep = _losses(sample, used, min_area_px, min_score) == _KEPT
                findings.object_places[sample.source] = [p for p, kept in zip(places, keep, strict=True) if kept]
    lines = _report(dataset, used, min_area_px, min_score)
    change = partial(
        _changed_sample,
        whole=dataset.vocabulary,
        vocabulary=vocabulary,
        used=used,
        min_area_px=min_area_px,
        min_score=min_score,
    )
    return changed(dataset, vocabulary, change), lines


def regrouped(sample: Sample, vocabulary: Vocabulary, new_rows: Int[np.ndarray, " names"]) -> Sample:
    """The sample in another vocabulary; several classes may become one, and objects of some are left out.

    A class made of several is absent where all of them are, and annotated exhaustively where all of them are.

    Args:
        new_rows: the row in `vocabulary` of each class, -1 for those left out.
    """
    kept = new_rows[sample.instances.class_ids] >= 0
    instances = sample.instances.select(kept)
    instances = replace(instances, class_ids=new_rows[instances.class_ids])
    absent, partly = sample.absent_class_ids, sample.not_exhaustive_class_ids
    if absent is not None or partly:
        present = set(instances.class_ids.tolist())
        groups = {row: np.flatnonzero(new_rows == row).tolist() for row in set(new_rows.tolist()) - {-1}}
        # A merged class is judged only where all of its parts are: others may be in the image unannotated.
        unsure = {row for row, olds in groups.items() if not all(map(sample.judges, olds))}
        partly = frozenset(row for row in unsure if row in present or any(i in partly for i in groups[row]))
        if absent is not None:
            absent = frozenset(row for row, olds in groups.items() if absent.issuperset(olds))
    return sample.evolve(
        instances=instances, vocabulary=vocabulary, absent_class_ids=absent, not_exhaustive_class_ids=partly
    )


def _vocabulary(whole: Vocabulary, used: Mapping[str, str], where: str) -> Vocabulary:
    """The new names in their order, each with the category id of the class that had the name, or else of its first."""
    ids = dict(zip(whole.names, whole.category_ids, strict=True))
    chosen: dict[str, int] = {}
    for old, new in used.items():
        if old in ids and (new not in chosen or old == new):
            chosen[new] = ids[old]
    if not chosen:
        raise DataError(
            f"{where}: has none of the classes {listed(list(used), _NAMED)}, only {listed(whole.names, _NAMED)}"
        )
    return Vocabulary(tuple(chosen), tuple(chosen.values()))


def _losses(
    sample: Sample, used: Mapping[str, str], min_area_px: float, min_score: float | None
) -> Int[np.ndarray, " n"]:
    """Why each object is left out, if it is."""
    instances = sample.instances
    in_use = np.array([name in used for name in sample.vocabulary.names])
    reasons = np.full(len(instances), _KEPT)
    if min_score is not None and instances.scores is not None:
        reasons[instances.scores < min_score] = _LOW
    # later lines win: a class that is not used is the reason named first
    reasons[(instances.areas_px < min_area_px) & ~instances.is_crowd] = _SMALL
    reasons[~in_use[instances.class_ids]] = _OTHER_CLASS
    return reasons


def _changed_sample(
    sample: Sample,
    *,
    whole: Vocabulary,
    vocabulary: Vocabulary,
    used: Mapping[str, str],
    min_area_px: float,
    min_score: float | None,
) -> Sample:
    reasons = _losses(sample, used, min_area_px, min_score)
    if (reasons > _OTHER_CLASS).any():
        sample = _without_small(
            sample, set(sample.instances.class_ids[reasons == _SMALL].tolist()), reasons <= _OTHER_CLASS
        )
    names = sample.vocabulary.names
    own = dict.fromkeys(used[name] for name in names if name in used)
    # grounding data: an image has names of its own
    new = vocabulary if names == whole.names or not own else Vocabulary(tuple(own))
    if new.names == names and all(used.get(name) == name for name in names):
        return sample.evolve(vocabulary=new)
    rows = {name: row for row, name in enumerate(new.names)}
    new_rows = np.array([rows[used[name]] if name in used else -1 for name in names], np.int64)
    if sample.caption:  # the sentence has other names than those that are left
        sample = sample.evolve(caption="", phrase_spans=())
    sample = regrouped(sample, new, new_rows)
    # none of its own names is used, so it judges none
    return sample if own else sample.evolve(absent_class_ids=frozenset())


def _without_small(sample: Sample, classes: Collection[int], keep: np.ndarray) -> Sample:
    """The sample without some objects that its image still shows: it no longer judges their classes."""
    instances = sample.instances.select(keep)
    if not classes:
        return sample.evolve(instances=instances)
    present = set(instances.class_ids.tolist())
    gone = frozenset(classes) - present
    return sample.evolve(
        instances=instances,
        # a class whose objects are all left out is neither present nor absent
        absent_class_ids=sample.known_absent_class_ids if gone else sample.absent_class_ids,
        not_exhaustive_class_ids=sample.not_exhaustive_class_ids | frozenset(classes),
    )


def _report(dataset: Dataset, used: Mapping[str, str], min_area_px: float, min_score: float | None) -> list[str]:
    counts: list[Counter[str]] = [Counter() for _ in range(4)]
    emptied = sentences = 0
    for sample in records(dataset):
        names, reasons = sample.vocabulary.names, _losses(sample, used, min_area_px, min_score)
        for class_id, reason in zip(sample.instances.class_ids.tolist(), reasons.tolist(), strict=True):
            counts[reason][names[class_id]] += 1
        emptied += bool(len(reasons)) and bool((reasons != _KEPT).all())
        sentences += bool(sample.caption) and any(used.get(name) != name for name in names)
    kept, other, small, low = counts
    lines = _names_report(dataset.vocabulary, used, kept, other)
    if small:
        lines.append(f"left out {small.total()} objects smaller than {min_area_px:g} square pixels: {_counted(small)}")
    if low:
        lines.append(f"left out {low.total()} objects that score below {min_score:g}; {kept.total()} are left")
    if emptied:
        lines.append(f"{emptied} images have no object left; they stay, as images without objects")
    if sentences:
        lines.append(f"left out the sentences of {sentences} images, whose names have changed")
    return lines


def _names_report(
    vocabulary: Vocabulary, used: Mapping[str, str], kept: Counter[str], other: Counter[str]
) -> list[str]:
    lines = []
    unused = [name for name in vocabulary.names if name not in used]
    if unused:
        shown = other + Counter() if other.total() else Counter(dict.fromkeys(unused, 0))
        lines.append(f"left out {len(unused)} classes with {other.total()} objects: {_counted(shown)}")
    sources: dict[str, list[str]] = {}
    for old, new in used.items():
        if old in vocabulary.names:
            sources.setdefault(new, []).append(old)
    for new, olds in sources.items():
        if len(olds) > 1:
            count = sum(kept[old] for old in olds)
            lines.append(f"merged {', '.join(map(repr, olds))} into {new!r}: {count} objects")
        elif olds != [new]:
            lines.append(f"renamed {olds[0]!r} to {new!r}: {kept[olds[0]]} objects")
    return lines


def _counted(counts: Counter[str]) -> str:
    return listed([f"{name} ({count})" for name, count in counts.most_common()], _NAMED)
