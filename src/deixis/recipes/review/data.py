"""What is reviewed: annotated images or images alone, and what a model finds in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deixis.data.formats import read_dataset
from deixis.data.inputs.find import find_images
from deixis.data.pixels.images import image_sizes_hw
from deixis.errors import DataError
from deixis.inference.detect.detector import Detector
from deixis.progress_bar import ProgressBar
from deixis.records import Dataset, Instances, Sample, SampleList, Vocabulary
from deixis.review.predicted import Predictions


def read_to_review(
    data: str, images: Path | None, format: str | None, *, split: str | None = None, names: Sequence[str] = ()
) -> tuple[Dataset, bool]:
    """A data set, and whether it is labelled: annotations in any format, or a folder of images alone.

    Args:
        names: the classes of images without annotations.

    Raises:
        DataError: neither is there.
    """
    try:
        return read_dataset(data, images, format, split=split), True
    except DataError as error:
        files = find_images([Path(data)]) if Path(data).is_dir() and format is None else []
        if not files:
            raise
        if not names:
            raise DataError(f"{error}; for images alone give --model and, if it stores no names, --names") from error
    vocabulary = Vocabulary(tuple(dict.fromkeys(names)))
    samples = [
        Sample(file, image_sizes_hw(file)[0], Instances.none(), vocabulary, number, file.name)
        for number, file in enumerate(files, start=1)
    ]
    return SampleList(tuple(samples), vocabulary, data), False


def predicted(
    detector: Detector, dataset: Dataset, model: str, threshold: float | None, *, batch_size: int
) -> Predictions:
    """What a model finds in the images of a data set.

    Args:
        model: its name.
        threshold: from which detections are reviewed; that of the model's record, or 0.3, where it is None.
    """
    with ProgressBar("predicted images") as progress:
        found = detector.predict_dataset(dataset, batch_size, progress=progress)
    names = dataset.vocabulary.names
    least = np.broadcast_to(np.asarray(detector.thresholds(names, threshold)), len(names)).tolist()
    return Predictions(model, found, dict(zip(names, least, strict=True)))
