"""Fine-tune models that tie language to pixels, on your own data.

>>> from deixis import load_detector
>>> detector = load_detector("builtin")  # doctest: +SKIP
>>> detector.predict("garden.jpg", ["raccoon", "cat"])  # doctest: +SKIP
[Detections(2 objects in garden.jpg, 640x480 pixels: 1 raccoon, 1 cat)]

Importing deixis is free: torch is imported by the first use of a name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deixis.errors import DataError, DeixisError, ModelError, OptionError, PromptError, TrainingError

if TYPE_CHECKING:
    __version__: str
    from deixis.data.inputs.stream import Stream
    from deixis.data.opened import OpenedDataset, read_dataset
    from deixis.inference.annotator import Annotator, load_annotator
    from deixis.inference.detect.detector import Detector, load_detector
    from deixis.inference.refer.captioner import Captioner, load_captioner
    from deixis.inference.refer.segmenter import Segmenter, load_segmenter
    from deixis.recipes.python import evaluate, train
    from deixis.records import Instances, Sample, Vocabulary
    from deixis.results.detections import Detections
    from deixis.results.segmentations import Segmentations

__all__ = [
    "Annotator",
    "Captioner",
    "DataError",
    "DeixisError",
    "Detections",
    "Detector",
    "Instances",
    "ModelError",
    "OpenedDataset",
    "OptionError",
    "PromptError",
    "Sample",
    "Segmentations",
    "Segmenter",
    "Stream",
    "TrainingError",
    "Vocabulary",
    "__version__",
    "evaluate",
    "load_annotator",
    "load_captioner",
    "load_detector",
    "load_segmenter",
    "read_dataset",
    "train",
]

_LAZY = {
    "Annotator": "deixis.inference.annotator",
    "Captioner": "deixis.inference.refer.captioner",
    "Detections": "deixis.results.detections",
    "Detector": "deixis.inference.detect.detector",
    "Instances": "deixis.records",
    "OpenedDataset": "deixis.data.opened",
    "Sample": "deixis.records",
    "Segmentations": "deixis.results.segmentations",
    "Segmenter": "deixis.inference.refer.segmenter",
    "Stream": "deixis.data.inputs.stream",
    "Vocabulary": "deixis.records",
    "evaluate": "deixis.recipes.python",
    "load_annotator": "deixis.inference.annotator",
    "load_captioner": "deixis.inference.refer.captioner",
    "load_detector": "deixis.inference.detect.detector",
    "load_segmenter": "deixis.inference.refer.segmenter",
    "read_dataset": "deixis.data.opened",
    "train": "deixis.recipes.python",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("deixis")
    if name not in _LAZY:
        raise AttributeError(f"module 'deixis' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
