"""How a detector run measures: in the run's precision, each process taking its share of the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from deixis.data.sets.subset import Subset
from deixis.evaluation.coco_map import DetectionMetrics, evaluate_detections
from deixis.evaluation.cocos_form import MAX_DETECTIONS_FEDERATED, detections_per_image
from deixis.inference.detect.detector import Detector
from deixis.inference.detect.sinks import Measure, SinkTrial, try_sinks, with_sinks_of
from deixis.models.checkpoints import load_any_detector
from deixis.recipes.detect.data.facts import has_objects
from deixis.records import Dataset
from deixis.training.processes import gather_in_order
from deixis.training.validation import spread_evenly

SINK_IMAGES = 64


def choose_sinks(
    detector: Detector, dataset: Dataset, count: int, *, measure: Measure
) -> tuple[SinkTrial, Tensor | None]:
    """What attention sinks do on a data set, the kind chosen on 64 of its images; and those to keep, if they help."""
    few: Dataset = Subset(dataset, tuple(spread_evenly(len(dataset), SINK_IMAGES)), "images to choose sinks on")
    few = few if len(few) < len(dataset) and has_objects(few) else dataset
    trial = try_sinks(detector, few, dataset, count, measure=measure)
    chosen = with_sinks_of(detector, trial.kind, count, dataset.vocabulary.names).sinks if trial.helps else None
    return trial, chosen


@dataclass(frozen=True)
class DetectorMeasure:
    """COCO metrics of detectors.

    Attributes:
        workers: threads that load images.
        max_detections: per image; None for COCO's 100 or LVIS's 300.
        wanted_precision: of the thresholds that are chosen; see `evaluate_detections`.
    """

    accelerator: Accelerator
    batch_size: int
    workers: int
    max_detections: int | None = None
    wanted_precision: float | None = None

    def __call__(self, detector: Detector, dataset: Dataset) -> DetectionMetrics:
        """Metrics of a detector as it is."""
        with self.accelerator.autocast():
            if self.accelerator.num_processes == 1:
                measured = detector.evaluate(
                    dataset,
                    self.batch_size,
                    workers=self.workers,
                    max_detections=self.max_detections,
                    wanted_precision=self.wanted_precision,
                )
                return measured[0]
            return self._shared(detector, dataset)

    def of_folder(self, folder: str | Path | None, detector: Detector, dataset: Dataset) -> dict[str, Any]:
        """Metrics of the detector in a folder, or of a hub id, at the image size of the run's own; of that one itself
        without."""
        if folder is not None:
            bundle = replace(load_any_detector(folder), image_size=detector.bundle.image_size)
            detector = Detector(bundle, self.accelerator.device)
        return self(detector, dataset).as_dict()

    def _shared(self, detector: Detector, dataset: Dataset) -> DetectionMetrics:
        accelerator = self.accelerator
        mine = range(accelerator.process_index, len(dataset), accelerator.num_processes)
        asked = self.max_detections or MAX_DETECTIONS_FEDERATED  # LVIS's limit, cut below where it does not apply
        predicted = detector.predict_dataset(dataset, self.batch_size, asked, indices=mine, workers=self.workers)
        found = list(zip(mine, predicted, strict=True))
        everything = gather_in_order(accelerator, found)
        truth = [dataset[index] for index in range(len(dataset))]  # of files the annotations alone: nothing is decoded
        most = self.max_detections or detections_per_image(truth)
        best = [one.best(most) for one in everything]
        limits = {"max_detections": self.max_detections, "wanted_precision": self.wanted_precision}
        return evaluate_detections(truth, best, dataset.vocabulary, **limits)  # type: ignore[arg-type]
