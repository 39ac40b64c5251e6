"""Images to boxes, masks and captions: detect, segment, describe, and segment each caption again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from deixis.console import Console
from deixis.data.detect.wordings import Wordings
from deixis.data.inputs.pictures import Frame, as_pixels
from deixis.data.inputs.stream import Stream, until_it_breaks, without_secrets
from deixis.data.refer.conversation import caption_turn, question_for
from deixis.errors import DataError
from deixis.inference.annotator import Annotator
from deixis.inference.outputs.annotations import (
    ANNOTATIONS,
    COCO,
    EXPRESSIONS,
    annotation_entry,
    failed_entry,
    require_annotated,
    write_coco_annotations,
    write_expressions,
)
from deixis.inference.outputs.cycle import CycleLines
from deixis.inference.outputs.videos import MOT, VIDEOS
from deixis.options.annotate import AnnotateOptions
from deixis.options.checks import A_DETECTOR, A_SEGMENTER
from deixis.progress_bar import ProgressBar
from deixis.recipes.annotate_videos import (
    FRAMES,
    AnnotatedVideo,
    frame_key,
    images_and_frames,
    write_frame,
    write_videos,
)
from deixis.recipes.detect.names import names_or_stored, separate_names, stored_names, wordings_lines
from deixis.recipes.engine.annotate import add_ray_lines, load_models, pictures_by_key
from deixis.recipes.engine.parts import ERRORS, ROWS
from deixis.recipes.engine.sources import ray_items
from deixis.recipes.model.choice import warn_of_shapes
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.outputs import tensor_digest, warn, weights_digest
from deixis.recipes.run.owned_output import writes_output
from deixis.reporting.gallery import GALLERY, GALLERY_IMAGES, write_gallery
from deixis.text import one_line

# Options by their names in annotations.jsonl, which earlier versions wrote too.
SETTINGS = {name: name for name in ("max_objects", "max_new_tokens", "max_tiles")}
WITH_NAMES = SETTINGS | {"least_fit": "min_fit"}
WITHOUT_NAMES = SETTINGS | {
    "points": "points",
    "least_predicted_iou": "min_predicted_iou",
    "most_overlap": "max_overlap",
}


@writes_output(ANNOTATIONS, COCO, EXPRESSIONS, GALLERY, FRAMES, VIDEOS, MOT, ROWS, ERRORS)
def annotate(options: AnnotateOptions) -> dict[str, int]:
    """Write coco.json, expressions.json and gallery.html; returns counts of their content. Resumes a stopped run.

    An image that cannot be read is reported on stderr and counted; the run continues.

    Raises:
        DeixisError: options, models or output cannot be used, no image is found, or none can be read.
    """
    asked: Wordings = {}
    if options.names:
        asked = names_or_stored(separate_names(options.names, stored_names(options.detector)), options.detector)
        options = replace(options, names=tuple(asked))
    on_ray = options.engine == "ray"
    items = ray_items(options, options.images) if on_ray else []
    device = choose_device("cpu" if on_ray else options.device)  # a cluster's workers have models of their own
    stream = Stream(options.stream) if options.stream else None
    images: Mapping[str, Any]
    images, frames, videos = (pictures_by_key(items, options.output), {}, []) if on_ray else images_and_frames(options)
    annotator = load_models(options, asked, device)
    warn_of_shapes(annotator.segmenter.bundle.record, options.segmenter, f"--segmenter {A_SEGMENTER}", options.images)
    if annotator.detector is not None:
        warn_of_shapes(annotator.detector.bundle.record, options.detector, f"--detector {A_DETECTOR}", options.images)
    provenance = made_by(options, annotator, asked)
    lines = CycleLines(options.output, provenance, ANNOTATIONS, require=require_annotated)
    console = Console(highlight=False)
    for line in wordings_lines(asked):
        console.print(line, markup=False)
    done = {entry["image"] for entry in lines.entries()}
    if done & set(images):
        console.print(f"resuming: {len(done & set(images))} of {len(images)} images are done", markup=False)
    try:
        if on_ray:
            add_ray_lines(options, asked, lines, keys=list(images), items=items, done=done)
        else:
            with ProgressBar("images") as progress:
                _add_lines(options, annotator, lines, images=images, frames=frames, done=done, progress=progress)
    except KeyboardInterrupt:
        console.print(f"run the same command again to resume from {lines.path}", markup=False)
        raise
    if stream is not None:
        with ProgressBar(stream.name) as progress:
            video = _add_stream(options, annotator, lines, stream, progress=progress)
        images, videos = {key: options.output / key for key in video.keys}, [video]
    return _write(options, lines, images, videos=videos, provenance=provenance, console=console)


def made_by(options: AnnotateOptions, annotator: Annotator, asked: Wordings) -> dict[str, Any]:
    """What determines annotations: models, prompts, thresholds. Options that only select from them are not among it."""
    settings = WITH_NAMES if options.names else WITHOUT_NAMES
    found: dict[str, Any] = {}
    if annotator.detector is not None:
        digest = weights_digest(annotator.detector.bundle.model)
        names = list(dict.fromkeys(options.names))
        found |= {"detector": options.detector, "detector_weights": digest, "names": names}
        found["threshold"] = annotator.detector.thresholds(names, options.threshold)
        if wordings_lines(asked):
            found["wordings"] = {name: list(words) for name, words in asked.items()}
        if annotator.detector.sinks is not None:
            found["sinks"] = tensor_digest(annotator.detector.sinks)
        if options.nms or options.nms_across_classes:
            found["nms"] = [options.nms, options.nms_across_classes]
    bundle = annotator.segmenter.bundle
    return {
        **found,
        "segmenter": options.segmenter,
        "segmenter_weights": weights_digest(bundle.model),
        "behaviour": bundle.behaviour,
        "prompts": [caption_turn().question, question_for("…")],
        **{stored: getattr(options, name) for stored, name in settings.items()},
        # frames of a stream are never mixed with those of another, or with images
        **({"stream": without_secrets(options.stream)} if options.stream else {}),
    }


def _add_lines(
    options: AnnotateOptions,
    annotator: Annotator,
    lines: CycleLines,
    *,
    images: Mapping[str, Any],
    frames: Mapping[str, Frame],
    done: set[str],
    progress: Callable[[int, int], None],
) -> None:
    number = len(done)
    for place, (key, path) in enumerate(images.items(), start=1):
        if key not in done:
            number += 1
            try:
                if key in frames:
                    write_frame(path, as_pixels(frames[key]))
                entry = annotation_entry(key, number, annotator.annotate_one(path, options.names))
            except DataError as error:  # of this image only
                entry = failed_entry(key, number, one_line(error))
            lines.append(entry)
        progress(place, len(images))


def _add_stream(
    options: AnnotateOptions,
    annotator: Annotator,
    lines: CycleLines,
    stream: Stream,
    *,
    progress: Callable[[int, int | None], None],
) -> AnnotatedVideo:
    """Annotate what a stream sends, behind the frames that an earlier run took, until it ends or is interrupted."""
    keys = [entry["image"] for entry in lines.entries()]  # of this stream only, as `made_by` names it
    most, step = options.max_frames, options.frame_step
    # up to the last frame that is taken, and none behind it, for which a camera would let us wait
    frames = islice(stream, 0, None if most is None else (most - 1) * step + 1, step)
    try:
        for count, pixels in enumerate(until_it_breaks(frames, warn), start=1):
            key, number = frame_key(stream.name, len(keys)), len(keys) + 1
            path = options.output / key
            write_frame(path, pixels)
            lines.append(annotation_entry(key, number, annotator.annotate_one(path, options.names)))
            keys.append(key)
            progress(count, most)
    except KeyboardInterrupt:
        if not keys:
            raise
    return AnnotatedVideo(stream.name, tuple(keys), stream.rate / step)


def _write(
    options: AnnotateOptions,
    lines: CycleLines,
    images: Mapping[str, Any],
    *,
    videos: Sequence[AnnotatedVideo],
    provenance: dict[str, Any],
    console: Console,
) -> dict[str, int]:
    entries = [entry for entry in lines.entries() if entry["image"] in images]
    failed = [entry for entry in entries if "error" in entry]
    good = [entry for entry in entries if "error" not in entry]
    for entry in failed:
        warn(f"left out: {entry['error']}")
    if not good:
        raise DataError(f"none of {len(failed)} images can be read; the first: {failed[0]['error']}")
    output = options.output
    write_videos(options, videos, good)
    counts = {
        "pictures": len(good),
        "objects": write_coco_annotations(
            output / COCO, good, list(dict.fromkeys(options.names)), provenance=provenance
        ),
        "captions": write_expressions(output / EXPRESSIONS, good, options.cycle_threshold, provenance=provenance),
        "left_out": sum(entry["left_out"] for entry in good),
        "failed": len(failed),
    }
    shown = ((images[entry["image"]], entry) for entry in good[:GALLERY_IMAGES])
    write_gallery(output / GALLERY, shown, counts, {**provenance, "cycle_threshold": options.cycle_threshold})
    console.print(
        f"{counts['objects']} objects in {counts['pictures']} images, {counts['captions']} captions that find their "
        f"masks again (cycle IoU {options.cycle_threshold:g}); {counts['left_out']} detections without a mask that "
        f"fits, {counts['failed']} unreadable images; see {output}",
        markup=False,
        soft_wrap=True,
    )
    return counts
