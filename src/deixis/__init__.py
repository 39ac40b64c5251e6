"""Fine-tune models that tie language to pixels, on your own data.

>>> from deixis import load_detector
>>> detector = load_detector("builtin")  # doctest: +SKIP
>>> detector.predict(["garden.jpg"], ["raccoon", "cat"])  # doctest: +SKIP

Importing deixis is free: torch is imported by the first use of a name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deixis.errors import DataError, DeixisError, ModelError, OptionError, PromptError, TrainingError

if TYPE_CHECKING:
    from deixis.data.formats import read_dataset
    from deixis.inference.detect.detector import Detector, load_detector
    from deixis.records import Detections, Instances, Sample, Vocabulary

__all__ = [
    "DataError",
    "DeixisError",
    "Detections",
    "Detector",
    "Instances",
    "ModelError",
    "OptionError",
    "PromptError",
    "Sample",
    "TrainingError",
    "Vocabulary",
    "load_detector",
    "read_dataset",
]

_LAZY = {
    "Detections": "deixis.records",
    "Detector": "deixis.inference.detect.detector",
    "Instances": "deixis.records",
    "Sample": "deixis.records",
    "Vocabulary": "deixis.records",
    "load_detector": "deixis.inference.detect.detector",
    "read_dataset": "deixis.data.formats",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'deixis' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
