"""Mask → caption → mask over a data set of masks: captions that can be found again, as data to train on."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from deixis.console import Console
from deixis.data.clip_readers import are_clips, read_clips
from deixis.data.clip_stills import ClipStills
from deixis.data.conversation import caption_turn, question_for
from deixis.data.mask_regions import each_mask
from deixis.data.refer_readers import read_refer
from deixis.data.writers.files import write_atomic
from deixis.errors import DataError
from deixis.evaluation.cycle import cycle_metrics
from deixis.inference.caption_outputs import image_name
from deixis.inference.cycle import Cycle
from deixis.inference.cycle_outputs import KEPT, LINES, CycleLines, cycle_entry, write_kept
from deixis.models.sa2va import Sa2vaBundle, load_sa2va
from deixis.recipes.caption_options import ReferCycleOptions
from deixis.recipes.devices import choose_device
from deixis.recipes.digest import weights_digest
from deixis.recipes.model_choice import warn_of_shapes
from deixis.recipes.option_checks import A_SEGMENTER
from deixis.recipes.owned_output import writes_output
from deixis.recipes.progress import progress_bar
from deixis.refer_records import ReferDataset


@writes_output(LINES, KEPT, "metrics.json", "images/000000.png")
def cycle_masks(options: ReferCycleOptions) -> dict[str, Any]:
    """Write cycle.jsonl, captions.json and metrics.json; the metrics. Goes on where an interrupted run stopped.

    Raises:
        DeixisError: options, data, model or output cannot be used.
    """
    options.check()
    dataset = read_masks(options)
    bundle = load_sa2va(options.model)
    warn_of_shapes(bundle.record, options.model, f"--model {A_SEGMENTER}", options.masks)
    lines = CycleLines(options.output, made_by(options, bundle, dataset))
    console = Console(highlight=False)
    done = lines.done()
    if done:
        console.print(f"going on at image {done + 1} of {len(dataset)}", markup=False)
    try:
        with progress_bar("pictures") as progress:
            _go_on(options, bundle, dataset, lines, done, progress)
    except KeyboardInterrupt:
        console.print(f"the same command goes on from {options.output / LINES}", markup=False)
        raise
    metrics = cycle_metrics((e for entry in lines.entries() for e in entry["expressions"]), options.threshold)
    captions, images = write_kept(options.output, lines, options.threshold)
    write_atomic(options.output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    console.print(
        f"{metrics['regions']} regions, cycle IoU {metrics.get('cycle_IoU', 0):.3f}; {captions} captions of {images} "
        f"pictures kept at {options.threshold:g}; see {options.output}",
        markup=False,
    )
    return metrics


def read_masks(options: ReferCycleOptions) -> ReferDataset:
    """Images whose expressions are their masks, each by itself; of clips the frame that shows most objects.

    Raises:
        DataError: they cannot be read.
    """
    if are_clips(options.masks, options.format):
        return ClipStills(read_clips(options.masks, options.images, options.format, max_clips=options.max_images), True)
    return each_mask(read_refer(options.masks, options.images, options.format, max_samples=options.max_images))


def made_by(options: ReferCycleOptions, bundle: Sa2vaBundle, dataset: ReferDataset) -> dict[str, Any]:
    """What decides captions and IoUs; the threshold, which only chooses among them, does not."""
    settings = ("candidates", "seed", "max_new_tokens", "max_tiles")
    return {
        "model": options.model,
        "weights": weights_digest(bundle.model),
        "behaviour": bundle.behaviour,
        "prompts": [caption_turn().question, question_for("…")],
        "data": dataset.name,
        "images": len(dataset),
        **{name: getattr(options, name) for name in settings},
    }


def _go_on(
    options: ReferCycleOptions,
    bundle: Sa2vaBundle,
    dataset: ReferDataset,
    lines: CycleLines,
    done: int,
    progress: Callable[[int, int], None],
) -> None:
    before = dataset[done - 1] if done else None
    last = deque(lines.entries(), maxlen=1)
    if before is not None and (last[0]["id"], last[0]["width"]) != (before.image_id, before.size_hw[1]):
        raise DataError(f"{lines.path}: line {done + 1} is of another image than the data has; choose another --output")
    cycle = Cycle(
        bundle,
        choose_device(options.device),
        options.max_tiles,
        options.max_new_tokens,
        options.candidates,
        options.seed,
        direct=True,
    )
    left = range(done, len(dataset))
    for index, (sample, cycled) in zip(left, cycle.run(dataset, options.batch_size, left), strict=True):
        whole = sample.evolve(image=dataset[index].image)
        lines.append(cycle_entry(whole, image_name(whole, options.output, index), cycled))
        progress(index + 1, len(dataset))
