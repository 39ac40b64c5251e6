"""Classes: used by no object, by few, unequally, named alike; and a vocabulary with such names merged."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from deixis.data.findings import Findings
from deixis.data.sets.classes import regrouped
from deixis.records import Sample, Vocabulary

FEW = 10
UNEQUAL = 100  # times as many objects of one class as of another


def count_objects(samples: Iterable[Sample]) -> Counter[str]:
    """Objects by class name, crowds not counted."""
    counts: Counter[str] = Counter()
    for sample in samples:
        ids = sample.instances.class_ids[~sample.instances.is_crowd].tolist()
        counts.update(sample.vocabulary.names[c] for c in ids)
    return counts


def examine_classes(names: Sequence[str], counts: Mapping[str, int], file: str, findings: Findings) -> None:
    """Findings on how often classes occur; some do."""
    for name in names:
        if not counts.get(name):
            findings.add("class_unused", file, f"class {name!r}", "has no object")
        elif counts[name] < FEW:
            findings.add("class_rare", file, f"class {name!r}", f"has {counts[name]} objects")
    used = [name for name in names if counts.get(name)]
    most, least = max(used, key=lambda name: counts[name]), min(used, key=lambda name: counts[name])
    if counts[most] >= UNEQUAL * counts[least]:
        text = f"{most!r} has {counts[most]} objects, {least!r} {counts[least]}"
        findings.add("class_imbalance", file, f"class {least!r}", text)


def compare_classes(
    training: Mapping[str, int], validation: Mapping[str, int], file: str, val_file: str, findings: Findings
) -> None:
    """Findings on classes that only one of the two sets has objects of."""
    for name in sorted(name for name, count in validation.items() if count and not training.get(name)):
        text = f"has {validation[name]} validation objects and no training object"
        findings.add("class_untrained", val_file, f"class {name!r}", text)
    for name in sorted(name for name, count in training.items() if count and not validation.get(name)):
        findings.add("class_unmeasured", file, f"class {name!r}", "has no validation object")


def examine_alike(vocabulary: Vocabulary, file: str, findings: Findings) -> dict[str, str]:
    """Names to those they may be merged into: alike but for case, blanks, `_` and `-`."""
    by_key: dict[str, list[str]] = defaultdict(list)
    for name in vocabulary.names:
        by_key[_plain(name, r"[\s_-]+")].append(name)
    merged = {}
    # The first name of a group stays, so the vocabulary's order decides.
    for first, *others in by_key.values():
        for name in others:
            kind = "names_same" if _plain(name, r"\s+") == _plain(first, r"\s+") else "names_alike"
            findings.add(kind, file, f"class {name!r}", f"is named as {first!r} is", f"merged into {first!r}")
            merged[name] = first
    return merged


def merge_classes(sample: Sample, vocabulary: Vocabulary, merged: Mapping[str, str]) -> Sample:
    """The sample in a vocabulary without the merged names."""
    rows = {name: row for row, name in enumerate(vocabulary.names)}
    new_rows = [rows.get(merged.get(name, name), -1) for name in sample.vocabulary.names]
    return regrouped(sample, vocabulary, np.array(new_rows, np.int64))


def without_classes(vocabulary: Vocabulary, gone: Iterable[str]) -> Vocabulary:
    """The vocabulary without some names, the others with their category ids."""
    gone = set(gone)
    rows = [(name, i) for name, i in zip(vocabulary.names, vocabulary.category_ids, strict=True) if name not in gone]
    return Vocabulary(tuple(name for name, _ in rows), tuple(i for _, i in rows))


def _plain(name: str, blanks: str) -> str:
    return re.sub(blanks, " ", name.casefold()).strip() or name
