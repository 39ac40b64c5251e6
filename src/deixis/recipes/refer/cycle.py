"""Mask → caption → mask over a data set of masks; captions that find their mask again become training data."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

from accelerate import Accelerator

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.data.clip_formats import are_clips, read_clips
from deixis.data.refer.conversation import caption_turn, question_for
from deixis.data.refer_formats import read_refer
from deixis.data.sets.clip_stills import ClipStills
from deixis.data.sets.mask_regions import each_mask
from deixis.errors import DataError
from deixis.evaluation.cycle import cycle_metrics
from deixis.inference.outputs.captions import image_name
from deixis.inference.outputs.cycle import KEPT, LINES, CycleLines, cycle_entry, require_cycled, write_kept
from deixis.inference.refer.cycle import Cycle
from deixis.models.sa2va import Sa2vaBundle, load_sa2va
from deixis.options.refer_cycle import ReferCycleOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.engine.cluster import require_cluster
from deixis.recipes.engine.parts import ERRORS, ROWS
from deixis.recipes.engine.refer_cycle import add_ray_lines, cycle_of
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.outputs import weights_digest
from deixis.recipes.run.owned_output import owned_output, writes_output
from deixis.refer_records import ReferDataset
from deixis.training.processes import broadcast_from_first, gather_in_order

WRITTEN = (LINES, KEPT, "metrics.json", "images/000000.png", ROWS, ERRORS)
_ROUND = 4  # images per process between two exchanges; few, so that no process waits long for another


@writes_output(*WRITTEN)
def cycle_masks(options: ReferCycleOptions) -> dict[str, Any]:
    """Write cycle.jsonl, captions.json and metrics.json; returns the metrics. Resumes an interrupted run.

    Raises:
        DeixisError: options, data, model or output cannot be used.
    """
    metrics = _cycle(options, None)
    assert metrics is not None
    return metrics


def cycle_masks_together(options: ReferCycleOptions, accelerator: Accelerator) -> None:
    """As `cycle_masks` in all processes of a run, each with its share of the images; the main process writes.

    Raises:
        DeixisError: options, data, model or output cannot be used.
    """
    options.check()
    with owned_output(options.output, WRITTEN) if accelerator.is_main_process else nullcontext():
        _cycle(options, accelerator)
    accelerator.wait_for_everyone()


def _cycle(options: ReferCycleOptions, accelerator: Accelerator | None) -> dict[str, Any] | None:
    if options.engine == "ray":
        require_cluster(options.address)
    dataset = read_masks(options)
    bundle = load_sa2va(options.model, tokenizer=options.tokenizer)
    writes = accelerator is None or accelerator.is_main_process
    lines = CycleLines(options.output, made_by(options, bundle, dataset), require=require_cycled) if writes else None
    done = 0 if lines is None else lines.done()
    # Only the first process has the file; all begin at the image that it says.
    done = done if accelerator is None else broadcast_from_first(accelerator, done)
    console = Console(highlight=False, quiet=not writes)
    if done:
        console.print(f"resuming at image {done + 1} of {len(dataset)}", markup=False)
    try:
        with ProgressBar("images") if writes else nullcontext(lambda done, total: None) as progress:
            _add_lines(options, bundle, dataset, lines=lines, done=done, progress=progress, accelerator=accelerator)
    except KeyboardInterrupt:
        console.print(f"run the same command again to resume from {options.output / LINES}", markup=False)
        raise
    if lines is None:
        return None
    metrics = cycle_metrics((e for entry in lines.entries() for e in entry["expressions"]), options.threshold)
    captions, images = write_kept(options.output, lines, options.threshold)
    write_atomic(options.output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    console.print(
        f"{metrics['regions']} regions, cycle IoU {metrics.get('cycle_IoU', 0):.3f}; {captions} captions of {images} "
        f"images kept at {options.threshold:g}; see {options.output}",
        markup=False,
    )
    return metrics


def read_masks(options: ReferCycleOptions) -> ReferDataset:
    """Images in which each mask is an expression of its own; of clips the frame that shows most objects.

    Raises:
        DataError: they cannot be read.
    """
    if are_clips(options.masks, options.format):
        return ClipStills(read_clips(options.masks, options.images, options.format, max_clips=options.max_images), True)
    return each_mask(read_refer(options.masks, options.images, options.format, max_samples=options.max_images))


def made_by(options: ReferCycleOptions, bundle: Sa2vaBundle, dataset: ReferDataset) -> dict[str, Any]:
    """What determines captions and IoUs. The threshold is not among it: it only selects from them."""
    settings = ("candidates", "seed", "max_new_tokens", "max_tiles")
    return {
        "model": options.model,
        "weights": weights_digest(bundle.model),
        "behaviour": bundle.behaviour,
        "prompts": [caption_turn().question, question_for("…", bundle.behaviour)],
        "data": dataset.name,
        "images": len(dataset),
        **{name: getattr(options, name) for name in settings},
    }


def _add_lines(
    options: ReferCycleOptions,
    bundle: Sa2vaBundle,
    dataset: ReferDataset,
    *,
    lines: CycleLines | None,
    done: int,
    progress: Callable[[int, int], None],
    accelerator: Accelerator | None,
) -> None:
    before = dataset[done - 1] if done and lines is not None else None  # the last image done: it must be the data's
    if before is not None and lines is not None:
        last = deque(lines.entries(), maxlen=1)
        if (last[0]["id"], last[0]["width"]) != (before.image_id, before.size_hw[1]):
            raise DataError(
                f"{lines.path}: line {done + 1} belongs to another image than the data's; choose another --output"
            )
    if options.engine == "ray" and lines is not None:
        add_ray_lines(options, dataset, lines, done=done)
        return
    device = choose_device(options.device) if accelerator is None else accelerator.device
    cycle = cycle_of(options, bundle, device)
    if accelerator is None or accelerator.num_processes == 1:
        for index, entry in _entries(options, dataset, cycle, indices=range(done, len(dataset))):
            assert lines is not None
            lines.append(entry)
            progress(index + 1, len(dataset))
        return
    count = accelerator.num_processes
    for start in range(done, len(dataset), count * _ROUND):
        end = min(start + count * _ROUND, len(dataset))
        indices = range(start + accelerator.process_index, end, count)  # of this round, every count-th
        mine = list(_entries(options, dataset, cycle, indices=indices))
        for entry in gather_in_order(accelerator, mine):
            if lines is not None:
                lines.append(entry)
        progress(end, len(dataset))


def _entries(
    options: ReferCycleOptions, dataset: ReferDataset, cycle: Cycle, *, indices: range
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, line) of some images."""
    for index, (sample, cycled) in zip(indices, cycle.run(dataset, options.batch_size, indices), strict=True):
        whole = sample.evolve(image=dataset[index].image)
        yield index, cycle_entry(whole, image_name(whole, options.output, index), cycled)
