"""Captions, the loop, annotating and following on real photographs, by the commands; their text kept as examples.

    python benchmarks/real_loop.py coco --write      # and fruits, demo; each trains its model first: minutes
    python benchmarks/real_loop.py demo --model runs/segmenter/teachers/sa2va --write

Without `--model` the built-in segmenter is first fine-tuned on the set's own photographs, to find and to describe, for
it knows no word for real things; for `demo`, which nobody annotated, on those of `coco`. `coco` and `fruits`: masks are
described and looked for again, then the same photographs are annotated with names and without. `demo`: its photographs
are annotated, and phrases are followed through its film and its folder of frames. With `--write` the measures go to
`results/` and shortened outputs to `docs/examples/`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from harness import table, write_result
from real_examples import EXAMPLES, REGIONS
from real_segmenter import DEFAULT_DATA, WHOLE, data_options
from real_steps import (
    ANNOTATE_HEAD,
    LEAST_PREDICTED_IOU,
    LOOP_HEAD,
    TRACK_HEAD,
    Run,
    Truth,
    annotated,
    looped,
    tracked,
    truth_of,
)

from deixis.options.data_split import DataSplitOptions
from deixis.options.refer_train import ReferTrainOptions
from deixis.recipes.data.split import split_data
from deixis.recipes.refer.train import finetune_segmenter

IMAGES = {
    "coco": ("coco_cc_instances/tiny_coco_train", "coco_cc_instances/tiny_coco_val"),
    "fruits": ("fruits_nuts_labelme/images",),
    "demo": ("demo_photos/images",),
}
DEMO_NAMES = "person", "dog", "cat", "car", "truck"
VIDEOS = {"video_bedroom": ("the person", "the bed"), "sam2_04_coffee.mp4": ("the cup", "the person")}
MOST_NAMES = 6
CAUTION = (
    "The models are small: the segmenter sees 128 px, began with generated shapes and has been shown these few "
    "photographs; the detector has seen none. What is shown is that real input goes the whole way, not how good a real "
    "model would be."
)


def training_data(name: str, root: Path, scratch: Path) -> dict[str, Any]:
    """`data` and `val_data`; no photograph is in both. Of the fruits a fifth is held out by `deixis data split`."""
    if name != "fruits":
        return data_options("coco", root)
    folder = str(root / "fruits_nuts_labelme")
    parts = split_data(DataSplitOptions(data=folder, output=scratch / "split", to="coco", workers=1))
    return {"data": (parts["train"],), "val_data": (parts["val"],)}


def trained(data: dict[str, Any], arguments: argparse.Namespace, output: Path) -> str:
    """The built-in segmenter fine-tuned on photographs, in both directions; a folder."""
    options = ReferTrainOptions(
        **data,
        output=output,
        model=arguments.start,
        experiment_name=arguments.name,
        epochs=arguments.epochs,
        max_steps=arguments.max_steps,
        learning_rate=arguments.learning_rate,
        caption_share=arguments.caption_share,
        max_tiles=1,
        num_workers=0,
        evaluate_every=arguments.epochs,
        baseline=False,
        report=False,
        **WHOLE,
    )
    return str(finetune_segmenter(options).teacher)


def on_masks(data: dict[str, Any], images: list[Path], run: Run) -> str:
    """Describe, look again, annotate; tables."""
    rows, truth, said = [], Truth(), []
    for part, masks in (("trained on", data["data"][-1]), ("held out", data["val_data"][0])):
        truth |= (own := truth_of(masks, run.root))
        row, captions = looped(part, masks, own, run)
        rows.append(row)
        said += [{"photographs": part, **caption} for caption in captions[:REGIONS]]
    run.keep("captions", said)
    counts = Counter(name for masks in truth.values() for name, _ in masks)
    names = [name for name, _ in counts.most_common(MOST_NAMES)]
    found = [annotated(images, asked, truth, run) for asked in (names, ())]
    return f"## Captions and the loop\n\n{table(LOOP_HEAD, rows)}\n\n## Annotated\n\n{table(ANNOTATE_HEAD, found)}"


def on_demo(images: list[Path], run: Run) -> str:
    """Annotate, follow; tables."""
    found = [annotated(images, asked, {}, run) for asked in (DEMO_NAMES, ())]
    videos = list(VIDEOS.items())[: len(images)]
    rows = [row for name, phrases in videos for row in tracked(run.root / "demo_photos" / name, phrases, run)]
    return f"## Annotated\n\n{table(ANNOTATE_HEAD, found)}\n\n## Followed\n\n{table(TRACK_HEAD, rows)}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(IMAGES))
    parser.add_argument("--model", default=None, help="a segmenter's folder; one is trained if not given")
    parser.add_argument(
        "--start", default="builtin", help="the segmenter that is fine-tuned where --model is not given"
    )
    parser.add_argument("--detector", default="builtin")
    parser.add_argument("--min-score", type=float, default=0.15, help="of a detection; the built-in is never sure")
    parser.add_argument("--threshold", type=float, default=0.5, help="least cycle IoU of what is kept")
    parser.add_argument("--pictures", type=int, default=None, help="photographs annotated; all if not given")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--max-steps", type=int, default=None)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--caption-share", type=float, default=0.4)
    parser.add_argument("--output", type=Path, default=None, help="keeps the run and the whole outputs there")
    parser.add_argument("--write", action="store_true", help="record the result and the examples")
    return parser.parse_args()


def main() -> None:
    """Train, run every command, print, and write where asked."""
    arguments = parsed()
    root = Path(os.environ.get("DEIXIS_SHARED_DATA", DEFAULT_DATA)).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        output = arguments.output or Path(scratch)
        data = training_data(arguments.name, root, Path(scratch))
        started = time.process_time()
        model, called = arguments.model, "/".join(Path(arguments.model or arguments.start).parts[-3:])
        told = f"The segmenter `{called}`"
        if model is None:
            model = trained(data, arguments, output / "runs")
            told += f", fine-tuned in {minutes_since(started)} processor minutes"
            told += f": {recipe(arguments)}"
            called += ", fine-tuned"
        examples = EXAMPLES / arguments.name if arguments.write else None
        scores = (arguments.detector, arguments.min_score, arguments.threshold)
        run = Run(model, called, *scores, root, output.resolve() / arguments.name, examples)
        found = (path for folder in IMAGES[arguments.name] for path in sorted((root / folder).iterdir()))
        images = [path for path in found if path.suffix in (".jpg", ".jpeg", ".png")][: arguments.pictures]
        body = on_demo(images, run) if arguments.name == "demo" else on_masks(data, images, run)
    body = (
        f"{told}; the detector `{arguments.detector}`, scores from {arguments.min_score:g} on; captions are kept at "
        f"a cycle IoU of {arguments.threshold:g}; without names, masks from a predicted IoU of {LEAST_PREDICTED_IOU:g} "
        f"on. {minutes_since(started)} processor minutes in all.\n\n{CAUTION}\n\n{body}"
    )
    print(body)
    if arguments.write:
        title = f"Captions, the loop, annotating and following on real photographs: {arguments.name}"
        print(f"wrote {write_result(f'real_loop_{arguments.name}', title, body)} and {examples}")


def minutes_since(started: float) -> str:
    return f"{(time.process_time() - started) / 60:.1f}"


def recipe(arguments: argparse.Namespace) -> str:
    """How the segmenter was trained, in words."""
    steps = f", {arguments.max_steps} steps at most" if arguments.max_steps else ""
    return (
        f"every part, {arguments.epochs} epochs{steps}, rate {arguments.learning_rate:g}, "
        f"caption share {arguments.caption_share:g}"
    )


if __name__ == "__main__":
    main()
