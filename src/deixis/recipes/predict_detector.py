"""Find named things in pictures and write what was found."""

from __future__ import annotations

from rich.console import Console

from deixis.errors import OptionError
from deixis.inference.detector import load_detector
from deixis.inference.images import find_images
from deixis.inference.outputs import write_predictions
from deixis.recipes.devices import choose_device
from deixis.recipes.options import DetectPredictOptions
from deixis.records import Detections
from deixis.reporting.draw import draw_detections


def predict_detector(options: DetectPredictOptions) -> list[Detections]:
    """Write drawn pictures, JSON and COCO results of every picture.

    Raises:
        DeixisError: options, pictures or model cannot be used.
    """
    options.check()
    if not options.names:
        raise OptionError("--names: got none, wanted what to look for, as in --names raccoon 'traffic light'")
    device = choose_device(options.device)
    images = find_images(options.images)
    detector = load_detector(options.model, device)
    found = detector.predict(images, options.names, options.threshold, options.max_detections, options.batch_size)
    write_predictions(options.output, found, images, draw=draw_detections)
    objects = sum(len(detections) for detections in found)
    console = Console(highlight=False)
    console.print(f"{objects} objects in {len(images)} pictures; see {options.output}", markup=False)
    return found
