"""Find named things in pictures and write what was found."""

from __future__ import annotations

from pathlib import Path

from deixis.console import Console
from deixis.data.formats import read_dataset
from deixis.errors import OptionError
from deixis.inference.detect.detector import load_detector
from deixis.inference.images import find_images, readable_images
from deixis.inference.outputs.detections import write_predictions
from deixis.options.checks import A_DETECTOR
from deixis.options.detect_predict import DetectPredictOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.detect.asked_names import separate_names
from deixis.recipes.detect.names import names_or_stored
from deixis.recipes.model.choice import warn_of_shapes
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.outputs import make_output, warn
from deixis.recipes.run.owned_output import writes_output
from deixis.results.detections import Detections
from deixis.results.draw import draw_detections


@writes_output("predictions.json", "coco_results.json", "pictures")
def predict_detector(options: DetectPredictOptions) -> list[Detections]:
    """Write drawn pictures, JSON and COCO results of every picture; those that cannot be read are told and left out.

    Raises:
        DeixisError: options, pictures or model cannot be used.
    """
    names = asked_names(options)
    device = choose_device(options.device)
    make_output(options.output)
    images = readable_images(find_images(options.images), warn)
    detector = load_detector(options.model, device, options.prompt_names)
    warn_of_shapes(detector.bundle.record, options.model, f"--model {A_DETECTOR}", options.images)
    with ProgressBar("images") as progress:
        found = detector.predict(
            images,
            names,
            options.threshold,
            max_detections=options.max_detections,
            batch_size=options.batch_size,
            progress=progress,
        )
    write_predictions(options.output, found, images, draw=draw_detections, model=options.model)
    objects = sum(len(detections) for detections in found)
    console = Console(highlight=False)
    console.print(f"{objects} objects in {len(images)} pictures; see {options.output}", markup=False)
    return found


def asked_names(options: DetectPredictOptions) -> list[str]:
    """What to look for, each name once: those given, those of the file, those of the annotations; or the model's own.

    Raises:
        OptionError: there is none, or the file cannot be read.
        DataError: the annotations cannot be read.
    """
    names = separate_names(options.names)
    if options.names_file is not None:
        names += _names_in(options.names_file)
    if options.names_data:
        names += read_dataset(options.names_data).vocabulary.names
    return names_or_stored(names, options.model)


def _names_in(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"--names-file: {path} cannot be read ({error}); wanted UTF-8 text, one name a line"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise OptionError(f"--names-file: {path} has no names, wanted one a line")
    return names
