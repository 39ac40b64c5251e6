"""Whether attention sinks help a detector on its own validation data, and which; see `models.grounding_dino.sinks`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from deixis.evaluation.coco_map import DetectionMetrics
from deixis.inference.detect.detector import Detector
from deixis.models.checkpoints import SinkKind, make_sinks, trainable
from deixis.records import Dataset

Measure = Callable[[Detector, Dataset], DetectionMetrics]
MIN_GAIN = 0.005
"""Of AP at FPR_bg 0.05 (of AP, where that cannot be measured), for sinks to be kept."""
MAX_LOSS = 0.01
"""Of AP, for sinks to be kept."""


@dataclass(frozen=True)
class SinkTrial:
    """What sinks did.

    Attributes:
        count: of the sinks that were tried.
        kind: the best on a few images.
        few: metrics on these images, by kind, and without sinks as "none".
        before, after: metrics on all images, without sinks and with those of the best kind.
    """

    count: int
    kind: SinkKind
    few: Mapping[str, DetectionMetrics]
    before: DetectionMetrics
    after: DetectionMetrics

    @property
    def helps(self) -> bool:
        """Whether the figure rises and AP hardly falls."""
        gain = figure(self.after) - figure(self.before)
        return gain >= MIN_GAIN and self.after.AP >= self.before.AP - MAX_LOSS

    @property
    def chosen(self) -> DetectionMetrics:
        """The metrics of what was chosen."""
        return self.after if self.helps else self.before

    def facts(self) -> dict[str, Any]:
        """What the model's record keeps; a count of 0 where sinks do not help."""
        count = self.count if self.helps else 0
        found: dict[str, Any] = {"count": count, "tried": self.count, "kind": self.kind, "images": self.before.images}
        for name in ("AP", "AP_at_FPR_bg", "FPR_bg"):
            values = [getattr(self.before, name), getattr(self.after, name)]
            if not any(map(math.isnan, values)):
                found[name] = [round(value, 6) for value in values]
        return found

    def lines(self) -> list[str]:
        """What was found, in words."""
        shown = ", ".join(f"{kind} {figure(metrics):.4f}" for kind, metrics in self.few.items())
        name = "AP" if math.isnan(self.before.AP_at_FPR_bg) else "AP at FPR_bg 0.05"
        change = f"{name} {figure(self.before):.4f} to {figure(self.after):.4f}, AP {self.before.AP:.4f} to"
        return [
            f"sinks   {name} on {self.few['none'].images} images, by kind: {shown}",
            f"sinks   {self.count} of kind {self.kind} on {self.before.images} images: {change} {self.after.AP:.4f}: "
            f"{'kept' if self.helps else 'off, they do not help here'}",
        ]


def figure(metrics: DetectionMetrics) -> float:
    """What decides: AP at FPR_bg 0.05, or AP where every image shows every class."""
    return metrics.AP if math.isnan(metrics.AP_at_FPR_bg) else metrics.AP_at_FPR_bg


def try_sinks(detector: Detector, few: Dataset, whole: Dataset, count: int, *, measure: Measure) -> SinkTrial:
    """Measure a detector without sinks and with each kind on a few images, and with the best kind on all.

    Args:
        detector: its own sinks do not count; it stays as it is.
        few: at most 64 images of `whole`, as the paper does.

    Raises:
        DataError: an image cannot be read, or no object is annotated.
    """
    names = whole.vocabulary.names
    plain = with_sinks_of(detector, None)
    tried = {kind: with_sinks_of(detector, kind, count, names) for kind in get_args(SinkKind)}
    found = {"none": measure(plain, few)} | {kind: measure(one, few) for kind, one in tried.items()}
    # the kind is chosen on few images and judged on all of them: kept sinks cost a prompt's tokens in every prediction
    best: SinkKind = max(tried, key=lambda kind: figure(found[kind]))
    # the same images: measuring them again would give the same figures
    if len(few) == len(whole):
        return SinkTrial(count, best, found, found["none"], found[best])
    return SinkTrial(count, best, found, measure(plain, whole), measure(tried[best], whole))


def with_sinks_of(detector: Detector, kind: SinkKind | None, count: int = 0, names: tuple[str, ...] = ()) -> Detector:
    """The detector with other sinks, on the same weights."""
    other = copy.copy(detector)  # shallow: the weights are shared
    other.use_sinks(None if kind is None else make_sinks(trainable(detector.bundle), count, kind, names))
    return other
