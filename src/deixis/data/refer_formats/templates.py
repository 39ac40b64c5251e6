"""Class names as phrases: any data set of named masks becomes one of expressions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from deixis.data.formats.record import Format
from deixis.data.refer_formats.entries import warn_left_out
from deixis.data.sets.embedded import records
from deixis.errors import DataError, OptionError
from deixis.records import Dataset, Rle, Sample
from deixis.refer_records import Expression, ReferSample

Objects = Literal["all", "single"]
DEFAULT_TEMPLATES = ("the {name}",)


def phrases(name: str, templates: Sequence[str]) -> tuple[str, ...]:
    """One sentence per template.

    Raises:
        OptionError: a template without `{name}`.
    """
    for template in templates:
        if "{name}" not in template:
            raise OptionError(f"template {template!r} has no {{name}}; write it as in 'the {{name}}'")
    return tuple(template.replace("{name}", name) for template in templates)


def with_templates(format: Format) -> Format:
    """A format of detection as one of phrases: each class name becomes a phrase; refused where it has no masks."""

    def read(place: Path, images: Path | None, split: str | None = None, **options: Any) -> Templated:
        return templated(
            format.read(place, images, **format.arguments(masks=True, split=split)), source=str(place), **options
        )

    takes = (*(name for name in format.takes if name == "split"), "templates", "objects", "absent_per_image")
    refused = "" if format.holds.masks else "have no masks; give data with masks, such as COCO or labelme"
    return Format(
        format.name, format.find, read, takes, yields_to=format.yields_to, decisive=format.decisive, refused=refused
    )


@dataclass(frozen=True)
class Templated:
    """The named masks of a data set as expressions; samples are read when asked for. See `templated`."""

    dataset: Dataset
    indices: tuple[int, ...]
    templates: tuple[str, ...]
    objects: Objects
    absent_per_image: int
    name: str

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> ReferSample:
        sample = self.dataset[self.indices[index]]
        expressions = class_expressions(sample, self.templates, self.objects)
        if self.absent_per_image:
            absent = sorted(sample.known_absent_class_ids)
            # the same in every epoch and worker
            drawn = np.random.default_rng([self.indices[index]]).permutation(len(absent))[: self.absent_per_image]
            expressions += [
                Expression(phrases(sample.vocabulary.names[c], self.templates), (), ("absent",), c)
                for c in sorted(absent[i] for i in drawn)
            ]
        return ReferSample(sample.image, sample.size_hw, tuple(expressions), sample.image_id, sample.source)


def templated(
    dataset: Dataset,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    objects: Objects = "all",
    absent_per_image: int = 0,
    source: str = "",
) -> Templated:
    """One expression for each class that an image shows.

    Args:
        dataset: with masks. Images with objects but without masks are left out, with a warning that counts them, and
            so are images without any phrase.
        templates: sentences with `{name}` in them, all of them the expression's.
        objects: `all`: an expression means all objects of its class, crowds too; classes that an image does not show
            exhaustively are left out. `single`: only classes with one object, which the phrase then means alone.
        source: the file or folder that the data set was read from, for messages.
        absent_per_image: ask also for this many classes that are known to be absent, drawn once per image.

    Raises:
        OptionError: a template without `{name}`.
        DataError: no image gives a phrase.
    """
    # Raises for a bad template here, and not in a loading worker.
    phrases("", templates)
    kept, maskless = [], []
    for index, sample in enumerate(records(dataset)):
        if len(sample.instances) and sample.instances.masks_rle is None:
            maskless.append(sample.source or f"image {sample.image_id}")
        elif class_expressions(sample, templates, objects) or (absent_per_image and sample.known_absent_class_ids):
            kept.append(index)
    name = str(getattr(dataset, "name", "data"))
    warn_left_out(source or name, "images whose objects have no masks", maskless)
    if not kept:
        raise DataError(
            f"{source or name}: none of its {len(dataset)} images gives a phrase: no object has a mask; give data with "
            "masks, or draw them"
        )
    return Templated(dataset, tuple(kept), tuple(templates), objects, absent_per_image, name)


def class_expressions(sample: Sample, templates: Sequence[str], objects: Objects) -> list[Expression]:
    """One expression per class, in the order of the vocabulary; `expression_id` is the class id."""
    instances = sample.instances
    masks: dict[int, list[Rle]] = {}
    for class_id, mask in zip(instances.class_ids.tolist(), instances.masks_rle or (), strict=False):
        if coco_mask.area(mask):
            masks.setdefault(class_id, []).append(mask)
    skipped = set(sample.not_exhaustive_class_ids)
    if objects == "single":
        counts = Counter(instances.class_ids.tolist())
        skipped |= {class_id for class_id, count in counts.items() if count > 1}
        skipped |= set(instances.class_ids[instances.is_crowd].tolist())
    return [
        Expression(phrases(sample.vocabulary.names[class_id], templates), tuple(found), expression_id=class_id)
        for class_id, found in sorted(masks.items())
        if class_id not in skipped
    ]
