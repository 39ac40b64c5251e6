"""Describe masks and write the captions."""

from __future__ import annotations

import json
from pathlib import Path

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.data.refer_formats import read_refer
from deixis.data.scenes.refer_scenes import ReferScenes, SceneThings
from deixis.data.sets.mask_regions import each_mask
from deixis.evaluation.captions import CaptionMetrics
from deixis.inference.outputs.captions import image_name, plain_entry, plain_expression, write_picture
from deixis.inference.outputs.detections import picture_names
from deixis.inference.refer.captioner import measured_captions
from deixis.options.checks import A_SEGMENTER
from deixis.options.refer_caption import ReferCaptionOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.engine.cluster import require_cluster
from deixis.recipes.engine.parts import ERRORS, ROWS
from deixis.recipes.engine.refer_caption import captioner_of, captions_on_ray
from deixis.recipes.model.choice import warn_of_shapes
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.outputs import weights_digest
from deixis.recipes.run.owned_output import writes_output
from deixis.refer_records import Caption
from deixis.results.draw import draw_masks


@writes_output("captions.json", "metrics.json", "pictures", "images/000000.png", ROWS, ERRORS)
def caption_masks(options: ReferCaptionOptions) -> list[list[Caption]]:
    """Write captions.json, drawn images and, with --measure, metrics.json.

    Raises:
        DeixisError: options, data or model cannot be used.
    """
    dataset = read_refer(options.masks, options.images, options.format, max_samples=options.max_images)
    on_ray = options.engine == "ray"
    if on_ray:
        require_cluster(options.address)
    captioner = captioner_of(options, choose_device("cpu" if on_ray else options.device))
    warn_of_shapes(captioner.bundle.record, options.model, f"--model {A_SEGMENTER}", options.masks)
    metrics = None
    if on_ray:
        digest = weights_digest(captioner.bundle.model)
        regions = SceneThings(dataset) if options.measure and isinstance(dataset, ReferScenes) else dataset
        dataset = dataset if options.measure else each_mask(dataset)
        answers = captions_on_ray(options, regions if options.measure else dataset, digest)
        metrics = measured_captions(dataset, answers) if options.measure else None
    else:
        with ProgressBar("images") as progress:
            if options.measure:
                metrics, answers = captioner.evaluate(dataset, options.batch_size, progress=progress)
            else:
                dataset = each_mask(dataset)
                answers = list(captioner.run(dataset, options.batch_size, progress=progress))
    samples = [sample.evolve(image=dataset[index].image) for index, (sample, _) in enumerate(answers)]
    captions = [found for _, found in answers]
    names = [image_name(sample, options.output, index) for index, sample in enumerate(samples)]
    entries = [
        plain_entry(sample, name, [plain_expression(caption, number) for number, caption in enumerate(found, start=1)])
        for sample, name, found in zip(samples, names, captions, strict=True)
    ]
    write_atomic(options.output / "captions.json", json.dumps(entries, ensure_ascii=False, indent=1) + "\n")
    if options.pictures:
        for sample, found, name in zip(samples, captions, picture_names([Path(name) for name in names]), strict=True):
            write_picture(options.output / "pictures" / name, sample, found, draw=draw_masks)
    console = Console(highlight=False)
    if metrics is not None:
        write_atomic(options.output / "metrics.json", json.dumps(metrics.as_dict(), indent=2) + "\n")
        print_caption_metrics(metrics)
    count = sum(map(len, captions))
    console.print(f"{count} regions described in {len(samples)} images; see {options.output}", markup=False)
    return captions


def print_caption_metrics(metrics: CaptionMetrics) -> None:
    """One line per group and one per attribute."""
    console = Console(highlight=False)
    for name, group in {"all": metrics.all, **metrics.sizes}.items():
        meteor = f"{metrics.meteor_name} {group.meteor:.3f}  " if metrics.meteor_name else ""
        console.print(
            f"{name:<8} CIDEr-D {group.cider:.3f}  {meteor}exact {100 * group.exact:.1f} %  "
            f"({group.captions} captions)",
            markup=False,
        )
    if metrics.meteor_missing:
        console.print(metrics.meteor_missing, markup=False)
    for name, found in metrics.attributes.items():
        console.print(f"{name:<8} named {100 * found.named:.1f} %, right of these {100 * found.right:.1f} %")
