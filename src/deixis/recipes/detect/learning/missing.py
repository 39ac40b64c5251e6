"""Objects that nobody annotated: where the model that training starts from is sure of one, its class is not judged, or
what it found becomes an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deixis.geometry.pixel_boxes import overlaps
from deixis.inference.detect.detector import load_detector
from deixis.recipes.detect.data.facts import joined, parts_of
from deixis.records import Dataset, Instances, Sample, Vocabulary
from deixis.results.detections import Detections

SAME_OBJECT = 0.5  # IoU from which a detection is taken for an annotated object, of whichever class
SURE = 0.4  # score of detections that count
TRUSTED = 0.5  # share of a class's annotated objects to be sure of, for what else it finds to be objects


@dataclass(frozen=True)
class PartlyJudged:
    """A data set in which some classes of some images may have more objects than are annotated.

    Attributes:
        unjudged: these classes, for each image.
        added: objects beside the annotated ones, for each image.
    """

    dataset: Dataset
    unjudged: tuple[frozenset[int], ...]
    added: tuple[Instances, ...] = ()

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
        added = self.added[index] if self.added else Instances.none()
        return sample.evolve(instances=both(sample.instances, added), not_exhaustive_class_ids=unjudged)


def repaired(training: Dataset, model: str, as_objects: bool = False) -> tuple[Dataset, str]:
    """The training data with `missing_classes` not judged, and a line that says of how many images that is.

    Args:
        model: detects; what training starts from.
        as_objects: of classes that the model knows (`trusted_classes`), they become objects in place of that.

    Raises:
        DeixisError: the model or an image cannot be read.
    """
    detector, parts = load_detector(model), []
    for part in parts_of(training):
        sure = [found[found.scores >= SURE] for found in detector.predict_dataset(part)]
        trusted = trusted_classes(part, sure) if as_objects else frozenset()
        missing = [(part[index], unannotated(part[index], one)) for index, one in enumerate(sure)]
        unjudged = tuple(missing_classes(sample, one, SURE) - trusted for sample, one in missing)
        added = tuple(new_objects(sample, one, trusted) for sample, one in missing)
        parts.append(PartlyJudged(part, unjudged, added))
    images = sum(bool(classes) for part in parts for classes in part.unjudged)
    objects = sum(len(one) for part in parts for one in part.added)
    became = f"; {objects} more became objects, of classes of which it finds half of the annotated ones"
    return joined(parts), (
        f"--repair-missing: on {images} of {len(training)} training images {model} finds objects with a score of "
        f"{SURE:g} or more that are not annotated; nothing else of their classes counts as background there"
        f"{became if as_objects else ''}"
    )


def trusted_classes(dataset: Dataset, sure: Sequence[Detections]) -> frozenset[int]:
    """Classes of which the model is sure of half of the annotated objects or more."""
    counts, hits = np.zeros(len(dataset.vocabulary), int), np.zeros(len(dataset.vocabulary), int)
    for index, found in enumerate(sure):
        sample = dataset[index]
        for box, of in zip(sample.instances.boxes_xyxy_px, sample.instances.class_ids, strict=True):
            # By name: a model's classes are numbered as it was asked, not as the data set numbers them.
            own = found.boxes_xyxy_px[[label == sample.vocabulary.names[of] for label in found.labels]]
            counts[of] += 1
            hits[of] += overlaps(box, own)[0].max(initial=0.0) >= SAME_OBJECT
    return frozenset(np.flatnonzero((counts > 0) & (hits >= TRUSTED * counts)).tolist())


def unannotated(sample: Sample, found: Detections) -> Detections:
    """Detections that lie on no annotated object, of whichever class."""
    objects = sample.instances.boxes_xyxy_px
    alone = [overlaps(box, objects)[0].max(initial=0.0) < SAME_OBJECT for box in found.boxes_xyxy_px]
    return found[np.array(alone, bool)]


def new_objects(sample: Sample, found: Detections, classes: frozenset[int]) -> Instances:
    """Detections of some classes as objects, without those that annotators verified to be absent."""
    names = sample.vocabulary.names
    wanted = {names[c] for c in classes - (sample.absent_class_ids or frozenset())}
    # The same object found twice would become two.
    found = found[np.array([label in wanted for label in found.labels], bool)].with_nms()
    return Instances.build(found.boxes_xyxy_px, [names.index(label) for label in found.labels])


def both(objects: Instances, added: Instances) -> Instances:
    """Objects of one image together; without masks, which what was added has none of."""
    if not len(added):
        return objects
    return Instances.build(
        np.concatenate([objects.boxes_xyxy_px, added.boxes_xyxy_px]),
        np.concatenate([objects.class_ids, added.class_ids]),
        np.concatenate([objects.is_crowd, added.is_crowd]),
        areas_px=np.concatenate([objects.areas_px, added.areas_px]),
    )


def missing_classes(sample: Sample, found: Detections, score: float) -> frozenset[int]:
    """Classes of confident detections that lie on no annotated object.

    A class that annotators verified to be absent stays so.
    """
    names = sample.vocabulary.names
    sure = unannotated(sample, found[found.scores >= score])
    classes = {names.index(label) for label in sure.labels if label in names}
    return frozenset(classes) - (sample.absent_class_ids or frozenset())
