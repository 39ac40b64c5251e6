"""Keeping what a detector knew: old pictures that are shown again, and names that get token embeddings of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deixis.data.formats import read_dataset
from deixis.data.inputs.find import find_images
from deixis.data.pixels.images import image_sizes_hw
from deixis.errors import DataError, OptionError
from deixis.inference.detect.detector import load_detector
from deixis.options.detect_train import Forgetting
from deixis.recipes.detect.data.facts import has_objects, parts_of
from deixis.records import Dataset, Instances, Sample, SampleList, Vocabulary
from deixis.results.detections import Detections

CONFIDENT = 0.5
"""Score from which a detection of the model that training starts from counts as an object."""
POSSIBLE = 0.2
"""Score from which it may be one: its class is then not known to be absent."""


def names_to_learn(training: Dataset) -> tuple[str, ...]:
    """The names that get a token embedding of their own: all names of the training data.

    Raises:
        OptionError: the data has sentences, whose phrases are not prompted as names.
    """
    if any(part[0].phrase_spans for part in parts_of(training)):
        raise OptionError("--keep prompt learns class names, but the training data has sentences; use another --keep")
    return training.vocabulary.names


def read_replayed(keeping: Forgetting, model: str) -> Dataset:
    """The old pictures of a run, with their annotations, or with the model's own detections as annotations.

    Raises:
        DeixisError: they cannot be read, or have no object.
    """
    if keeping.replay_names:
        dataset = self_labelled(keeping.replay_data, keeping.replay_names, model)
    else:
        dataset = read_dataset(keeping.replay_data, keeping.replay_images, masks=False)
    if not has_objects(dataset):
        raise DataError(f"--replay-data: {keeping.replay_data} has no object, so it keeps no name; give other pictures")
    return dataset


def self_labelled(images: str, names: Sequence[str], model: str) -> Dataset:
    """Pictures with what the model finds on them; see `labels_of`.

    Raises:
        DeixisError: there is no picture, or one cannot be read.
    """
    vocabulary = Vocabulary(tuple(names))
    paths = find_images(Path(images))
    samples = [
        Sample(path, image_sizes_hw(path)[0], Instances.none(), vocabulary, image_id=number, source=str(path))
        for number, path in enumerate(paths, start=1)
    ]
    plain = SampleList(tuple(samples), vocabulary, str(images))
    found = load_detector(model).predict_dataset(plain)
    return SampleList(tuple(map(labels_of, samples, found)), vocabulary, f"{images}, labelled by {model}")


def labels_of(sample: Sample, found: Detections) -> Sample:
    """A picture without annotations, with a model's confident detections as its objects.

    A class that is found with a lower score only is neither there nor absent: training learns nothing of it here.
    """
    # A detector may find one object several times; as annotations each box is an object.
    objects = found[found.scores >= CONFIDENT].with_nms()
    unsure = found.class_ids[(found.scores >= POSSIBLE) & (found.scores < CONFIDENT)]
    instances = Instances.build(objects.boxes_xyxy_px, objects.class_ids, scores=objects.scores)
    return sample.evolve(instances=instances, not_exhaustive_class_ids=frozenset(np.unique(unsure).tolist()))
