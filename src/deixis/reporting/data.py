"""What a report shows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from deixis.evaluation.cocos_form import MEDIUM_AREA_PX, SMALL_AREA_PX
from deixis.evaluation.trade_off import TradeOff
from deixis.records import Dataset


@dataclass(frozen=True)
class DatasetFacts:
    """A data set in numbers.

    Attributes:
        boxes: objects, crowds not counted.
        boxes_per_class: by class name, in vocabulary order.
        boxes_per_size: how many are small, medium and large, by COCO's limits of 32² and 96² pixels.
        box_side_px: the smallest, median and largest square root of a box's area, in pixels; zeros without boxes.
        image_sizes_hw: the smallest, median and largest image by area, in pixels.
        empty_images: images without an object.
        max_boxes: the largest number of objects in one image.
    """

    name: str
    images: int
    boxes: int
    crowds: int
    boxes_per_class: dict[str, int]
    boxes_per_size: dict[str, int]
    box_side_px: tuple[float, float, float]
    image_sizes_hw: tuple[tuple[int, int], ...]
    empty_images: int
    max_boxes: int

    def rows(self) -> dict[str, Sequence[int | str]]:
        """What a table shows of the data set: one or more values by name."""
        return {
            "images": [self.images],
            "images without an object": [self.empty_images],
            "objects": [self.boxes],
            "crowd regions (no targets, ignored)": [self.crowds],
            "most objects per image": [self.max_boxes],
            "objects: small / medium / large": list(self.boxes_per_size.values()),
            "object side in px: smallest / median / largest": [f"{side:.0f}" for side in self.box_side_px],
            "image size in px: smallest / median / largest": [f"{w}×{h}" for h, w in self.image_sizes_hw],
        }


@dataclass(frozen=True)
class Curves:
    """What was measured while a run went on; see `deixis.reporting.metrics_file.read_curves`.

    Attributes:
        steps: the optimiser step of each entry of `losses` and `learning_rates`.
        losses: every logged loss component, and `loss`, their weighted sum; NaN where a value is missing.
        learning_rates: by parameter group.
        epochs: the epoch of each entry of `epoch_metrics`, 0 for before training.
        epoch_metrics: validation metrics in [0, 1] by name (`AP`, `AP50`, ...).
        skipped: one line for each optimiser step that was skipped, and why.
        validation_steps: the optimiser step of each entry of `validation_losses`.
        validation_losses: the losses on validation data, by the names of `losses`.
    """

    steps: Sequence[int] = ()
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    learning_rates: Mapping[str, Sequence[float]] = field(default_factory=dict)
    epochs: Sequence[int] = ()
    epoch_metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    skipped: Sequence[str] = ()
    validation_steps: Sequence[int] = ()
    validation_losses: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ForgettingFacts:
    """What was given for what was gained.

    Attributes:
        old_name: of the data that shows forgetting.
        new_images, old_images: how many were measured.
        points: from the base (weight 0) to the tuned model (weight 1).
        command: writes the model at the knee; empty where that is one of the two ends.
    """

    old_name: str
    new_images: int
    old_images: int
    points: Sequence[TradeOff]
    command: str


def dataset_facts(dataset: Dataset) -> DatasetFacts:
    """Count a data set. Its images are not decoded."""
    counts = np.zeros(len(dataset.vocabulary), np.int64)
    class_of = {name: i for i, name in enumerate(dataset.vocabulary.names)}
    areas, sides, sizes_hw, per_image, crowds = [], [], [], [], 0
    for i in range(len(dataset)):
        sample = dataset[i]
        objects = sample.instances.select(~sample.instances.is_crowd)
        crowds += len(sample.instances) - len(objects)
        for c in objects.class_ids:
            if (row := class_of.get(sample.vocabulary.names[c])) is not None:
                counts[row] += 1
        areas.append(objects.areas_px)
        sides.append(np.sqrt(np.prod(np.clip(objects.boxes_xyxy_px[:, 2:] - objects.boxes_xyxy_px[:, :2], 0, None), 1)))
        sizes_hw.append(sample.size_hw)
        per_image.append(len(objects))
    all_areas, all_sides = np.concatenate([*areas, np.zeros(0)]), np.concatenate([*sides, np.zeros(0)])
    small, large = int((all_areas < SMALL_AREA_PX).sum()), int((all_areas > MEDIUM_AREA_PX).sum())
    return DatasetFacts(
        name=str(getattr(dataset, "name", "data")),
        images=len(dataset),
        boxes=len(all_areas),
        crowds=crowds,
        boxes_per_class=dict(zip(dataset.vocabulary.names, counts.tolist(), strict=True)),
        boxes_per_size={"small": small, "medium": len(all_areas) - small - large, "large": large},
        box_side_px=_spread(all_sides),
        image_sizes_hw=_spread_of_sizes(sizes_hw),
        empty_images=per_image.count(0),
        max_boxes=max(per_image, default=0),
    )


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    if not len(values):
        return 0.0, 0.0, 0.0
    return float(values.min()), float(np.median(values)), float(values.max())


def _spread_of_sizes(sizes_hw: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    ordered = sorted(sizes_hw, key=lambda size: (size[0] * size[1], size))
    return (ordered[0], ordered[len(ordered) // 2], ordered[-1]) if ordered else ()
