"""Find named things in pictures and write what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deixis.console import Console
from deixis.data.detect.wordings import Wordings, text_of
from deixis.data.formats import read_dataset
from deixis.data.inputs.stream import Stream
from deixis.errors import DataError, OptionError
from deixis.inference.detect.detector import Detector, load_detector
from deixis.inference.detect.tracking import byte_tracker
from deixis.inference.images import Picture
from deixis.inference.outputs.detection_lines import LINES, DetectionLines
from deixis.inference.outputs.detections import picture_names, write_picture, write_predictions
from deixis.inference.outputs.videos import MOT, VIDEOS
from deixis.options.checks import A_DETECTOR
from deixis.options.detect_predict import DetectPredictOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.detect.names import names_or_stored, separate_names, stored_names, wordings_lines
from deixis.recipes.detect.predict_videos import FOLDER_RATE, images_and_videos, predict_stream, predict_videos
from deixis.recipes.engine.detect_predict import predict_on_ray
from deixis.recipes.engine.parts import ERRORS, ROWS
from deixis.recipes.engine.sources import ray_items
from deixis.recipes.model.choice import warn_of_shapes
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.outputs import make_output, tensor_digest, warn, weights_digest
from deixis.recipes.run.owned_output import writes_output
from deixis.results.detections import Detections
from deixis.results.draw import draw_detections
from deixis.text import one_line


@writes_output("predictions.json", "coco_results.json", "pictures", LINES, VIDEOS, MOT, ROWS, ERRORS)
def predict_detector(options: DetectPredictOptions) -> list[Detections]:
    """Write drawn pictures, JSON and COCO results of every image, and the results of every video.

    What cannot be read is reported and left out; the records of images are returned.

    Each image is written when it is done: the same command resumes an interrupted one.

    Raises:
        DeixisError: options, images or model cannot be used.
    """
    asked = asked_names(options)
    make_output(options.output)
    on_ray = options.engine == "ray"
    items = ray_items(options, options.images) if on_ray else []
    device = choose_device("cpu" if on_ray else options.device)  # a cluster's workers have models of their own
    images, videos = ([], []) if on_ray else images_and_videos(options)
    stream = Stream(options.stream) if options.stream else None
    if options.track:
        byte_tracker(FOLDER_RATE)  # an error before the model is read, if it is not installed
    detector = load_detector(options.model, device, options.prompt_names, wordings=asked, **options.boxes)
    warn_of_shapes(detector.bundle.record, options.model, f"--model {A_DETECTOR}", options.images)
    console, provenance = Console(highlight=False), made_by(options, detector, asked)
    for line in wordings_lines(asked):
        console.print(line, markup=False)
    if on_ray:
        return predict_on_ray(options, asked, items, provenance)
    lines = DetectionLines(options.output, provenance, list(asked))
    if done := lines.done(images):
        console.print(f"resuming: {done} of {len(images)} images are done", markup=False)
    found = _predict(options, detector, lines, images) if images else []
    said = [f"{sum(map(len, found))} objects in {len(found)} pictures"] if images else []
    if videos:
        said.append(predict_videos(options, detector, lines, videos))
    if stream is not None:
        said.append(predict_stream(options, detector, stream, lines.names))
    # All results are in their final files: what a resumed run would read is not needed any more.
    lines.remove()
    console.print(f"{'; '.join(said)}; see {options.output}", markup=False)
    return found


def made_by(options: DetectPredictOptions, detector: Detector, asked: Wordings) -> dict[str, Any]:
    """What determines detections: weights, names, thresholds and how boxes are chosen."""
    names = list(asked)
    return {
        "weights": weights_digest(detector.bundle.model),
        "names": names,
        "threshold": detector.thresholds(names, options.threshold),
        **{name: getattr(options, name) for name in ("max_detections", "prompt_names", "slice", "overlap")},
        **({} if detector.sinks is None else {"sinks": tensor_digest(detector.sinks)}),
        **({"wordings": dict(asked)} if wordings_lines(asked) else {}),
        **({"nms": [options.nms, options.nms_across_classes]} if options.nms or options.nms_across_classes else {}),
    }


def _predict(
    options: DetectPredictOptions, detector: Detector, lines: DetectionLines, images: Sequence[Path]
) -> list[Detections]:
    """Detect in the images that are not done, and write each; then what was found in all.

    Raises:
        DataError: no image can be read.
    """
    names = dict(zip(images, picture_names(images), strict=True))
    left = [image for image in images if not lines.has(image)]
    unreadable: list[str] = []

    def report(picture: Picture, error: DataError) -> None:
        unreadable.append(one_line(error))
        warn(f"left out: {unreadable[-1]}")

    found = detector.stream(
        left,
        lines.names,
        options.threshold,
        max_detections=options.max_detections,
        batch_size=options.batch_size,
        unreadable=report,
    )
    with ProgressBar("images") as progress:
        for detections in found:
            path = detections.image.path if detections.image else None
            assert path is not None
            if options.pictures:
                write_picture(
                    options.output / "pictures" / names[path], draw_detections(detections.pixels(), detections)
                )
            lines.add(detections, path)
            progress(lines.count + len(unreadable), len(images))
    everything = lines.finished(images)
    if not everything:
        raise DataError(f"none of {len(images)} images can be read; the first: {unreadable[0]}")
    paths = [one.image.path for one in everything if one.image and one.image.path]
    write_predictions(options.output, everything, paths, model=options.model)
    return everything


def asked_names(options: DetectPredictOptions) -> Wordings:
    """What to look for, each class once: those given, those of the file, those of the annotations; or the model's own.

    Raises:
        OptionError: there is none, or the file cannot be read.
        DataError: the annotations cannot be read.
    """
    names = separate_names(options.names, stored_names(options.model))
    if options.names_file is not None:
        names += _names_in(options.names_file)
    if options.names_data:
        names += map(text_of, read_dataset(options.names_data).vocabulary.names)
    return names_or_stored(names, options.model)


def _names_in(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"--names-file: {path} cannot be read ({error}); expected UTF-8 text, one name per line"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise OptionError(f"--names-file: {path} has no names, expected one per line")
    return names
