"""Objects that nobody annotated: where the model that training starts from is sure of one, its class is not judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deixis.geometry.pixel_boxes import overlaps
from deixis.inference.detect.detector import Detector, load_detector
from deixis.recipes.detect.data import joined, parts_of
from deixis.records import Dataset, Sample, Vocabulary
from deixis.results.detections import Detections

SAME_OBJECT = 0.5  # IoU from which a detection is taken for an annotated object, of whichever class


@dataclass(frozen=True)
class PartlyJudged:
    """A data set in which some classes of some images may have more objects than are annotated.

    Attributes:
        unjudged: these classes, for each image.
    """

    dataset: Dataset
    unjudged: tuple[frozenset[int], ...]

    @property
    def vocabulary(self) -> Vocabulary:
        """That of the whole data set."""
        return self.dataset.vocabulary

    @property
    def name(self) -> str:
        """What reports call it."""
        return str(getattr(self.dataset, "name", "data"))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.dataset[index]
        unjudged = sample.not_exhaustive_class_ids | self.unjudged[index]
        return sample.evolve(not_exhaustive_class_ids=unjudged)


def repaired(training: Dataset, model: str, score: float) -> tuple[Dataset, str]:
    """The training data with `missing_classes` not judged, and a line that says of how many images that is.

    Args:
        model: detects; what training starts from.
        score: of detections that count.

    Raises:
        DeixisError: the model or an image cannot be read.
    """
    detector, parts = load_detector(model), []
    for part in parts_of(training):
        parts.append(PartlyJudged(part, unjudged_classes(detector, part, score)))
    images = sum(bool(classes) for part in parts for classes in part.unjudged)
    return joined(parts), (
        f"--repair-missing: on {images} of {len(training)} training images {model} finds objects with a score of "
        f"{score:g} or more that are not annotated; nothing else of their classes counts as background there"
    )


def unjudged_classes(detector: Detector, dataset: Dataset, score: float) -> tuple[frozenset[int], ...]:
    """`missing_classes` of every image."""
    found = detector.predict_dataset(dataset)
    return tuple(missing_classes(dataset[index], one, score) for index, one in enumerate(found))


def missing_classes(sample: Sample, found: Detections, score: float) -> frozenset[int]:
    """Classes of confident detections that lie on no annotated object.

    A class that annotators verified to be absent stays so.
    """
    sure = found[found.scores >= score]
    if not len(sure):
        return frozenset()
    objects = sample.instances.boxes_xyxy_px
    alone = np.array([overlaps(box, objects)[0].max(initial=0.0) < SAME_OBJECT for box in sure.boxes_xyxy_px])
    names = sample.vocabulary.names
    classes = {names.index(sure.names[c]) for c in np.unique(sure.class_ids[alone]) if sure.names[c] in names}
    return frozenset(classes) - (sample.absent_class_ids or frozenset())
