"""Segment phrases in images and write the masks."""

from __future__ import annotations

from collections.abc import Sequence

from pycocotools import mask as coco_mask

from deixis.console import Console
from deixis.inference.images import find_images, readable_images
from deixis.inference.outputs.detections import picture_names
from deixis.inference.outputs.segmentation_lines import LINES, SegmentationLines
from deixis.inference.outputs.segmentations import write_answers, write_masks
from deixis.inference.refer.segmenter import Segmenter
from deixis.models.sa2va import load_sa2va
from deixis.options.checks import A_SEGMENTER
from deixis.options.refer_predict import ReferPredictOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.model.choice import warn_of_shapes
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.outputs import make_output, warn, weights_digest
from deixis.recipes.run.owned_output import writes_output
from deixis.results.draw import draw_masks
from deixis.results.segmentations import Segmentations


@writes_output("segmentations.json", "masks", "pictures", LINES)
def predict_segmenter(options: ReferPredictOptions) -> list[Segmentations]:
    """Write drawn images, mask files and one JSON; images that cannot be read are reported and left out.

    Each image is written when it is done: the same command resumes an interrupted one.

    Raises:
        DeixisError: options, images or model cannot be used.
    """
    device = choose_device(options.device)
    make_output(options.output)
    images = readable_images(find_images(options.images), warn)
    bundle = load_sa2va(options.model)
    warn_of_shapes(bundle.record, options.model, f"--model {A_SEGMENTER}", options.images)
    segmenter = Segmenter(bundle, device, options.max_tiles, threshold=options.threshold, generate=options.generate)
    made_by = {
        "weights": weights_digest(bundle.model),
        "behaviour": bundle.behaviour,
        "threshold": segmenter.threshold,
        **{name: getattr(options, name) for name in ("phrases", "generate", "max_tiles")},
    }
    lines = SegmentationLines(options.output, made_by)
    console = Console(highlight=False)
    done = lines.files.done(images)
    if done:
        console.print(f"resuming: {done} of {len(images)} images are done", markup=False)
    names = dict(zip(images, picture_names(images), strict=True))
    left = [image for image in images if lines.files.get(image) is None]
    with ProgressBar("images") as progress:
        answered = zip(left, segmenter.stream(left, options.phrases, options.batch_size), strict=True)
        for number, (image, found) in enumerate(answered, start=done + 1):
            write_masks(options.output, found, image, name=names[image], draw=draw_masks)
            lines.add(image, found)
            progress(number, len(images))
    answers = lines.finished(images)
    write_answers(options.output, answers, images, list(names.values()))
    lines.files.remove()
    _print_counts(options, console, answers)
    return answers


def _print_counts(options: ReferPredictOptions, console: Console, answers: Sequence[Segmentations]) -> None:
    found = sum(int(coco_mask.area(answer.mask_rle)) > 0 for of_image in answers for answer in of_image)
    total = len(answers) * len(options.phrases)
    console.print(f"{found} of {total} phrases found in {len(answers)} images; see {options.output}", markup=False)
