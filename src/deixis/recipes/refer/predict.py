"""Segment phrases in images and write the masks."""

from __future__ import annotations

from pycocotools import mask as coco_mask

from deixis.console import Console
from deixis.inference.images import find_images, readable_images
from deixis.inference.outputs.segmentations import write_segmentations
from deixis.inference.refer.segmenter import Segmenter
from deixis.models.sa2va import load_sa2va
from deixis.options.checks import A_SEGMENTER
from deixis.options.refer_predict import ReferPredictOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.model.choice import warn_of_shapes
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.outputs import make_output, warn
from deixis.recipes.run.owned_output import writes_output
from deixis.results.draw_masks import draw_masks
from deixis.results.segmentations import Segmentations


@writes_output("segmentations.json", "masks", "pictures")
def predict_segmenter(options: ReferPredictOptions) -> list[Segmentations]:
    """Write drawn images, mask files and one JSON; images that cannot be read are reported and left out.

    Raises:
        DeixisError: options, images or model cannot be used.
    """
    device = choose_device(options.device)
    make_output(options.output)
    images = readable_images(find_images(options.images), warn)
    bundle = load_sa2va(options.model)
    warn_of_shapes(bundle.record, options.model, f"--model {A_SEGMENTER}", options.images)
    segmenter = Segmenter(bundle, device, options.max_tiles, threshold=options.threshold, generate=options.generate)
    with ProgressBar("images") as progress:
        answers = segmenter.segment(images, options.phrases, options.batch_size, progress=progress)
    write_segmentations(options.output, answers, images, draw=draw_masks)
    found = sum(int(coco_mask.area(answer.mask_rle)) > 0 for of_image in answers for answer in of_image)
    console = Console(highlight=False)
    total = len(images) * len(options.phrases)
    console.print(f"{found} of {total} phrases found in {len(images)} images; see {options.output}", markup=False)
    return answers
