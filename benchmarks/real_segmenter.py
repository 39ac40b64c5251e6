"""Real photographs with class names as phrases: a segmenter trained, measured, asked and drawn by the commands.

    python benchmarks/real_segmenter.py coco --model runs/segmenter/teachers/sa2va --epochs 5 --write
    python benchmarks/real_segmenter.py fruits --max-steps 4      # a small random model, to see that everything runs

Two sets of few photographs (`SOURCE.md` beside each): COCO with every object of a class meant by its name, 28 for
training and 2 held out by their source; fruits and nuts in labelme's form, a tenth held out. "Before" and "after"
are the run's own. They are too small for a trend: what is shown is that real input goes the whole way, and its result.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from harness import table, write_random_segmenter, write_result

from deixis.data.refer_formats import read_refer
from deixis.options.refer_eval import ReferEvalOptions
from deixis.options.refer_predict import ReferPredictOptions
from deixis.options.refer_train import ReferTrainOptions
from deixis.recipes.refer.evaluate import evaluate_segmenter
from deixis.recipes.refer.predict import predict_segmenter
from deixis.recipes.refer.train import finetune_segmenter
from deixis.reporting.outcome import OPTIMISTIC

# For a small model with new words to learn: all of it trains, as in `deixis demo refer`.
WHOLE: dict[str, Any] = {
    "lora": False,
    "train": ("vision", "projector", "text_hidden_fcs", "sam_encoder", "mask_decoder"),
    "train_embeddings": True,
    "weight_dice": 2.0,
    "mask_points": 0,
    "batch_size": 4,
    "max_masks": 6,
}
DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"
COCO = "instances_coco_tiny_train2017.json", "instances_tiny_coco_train.json", "instances_tiny_coco_val.json"


def data_options(name: str, root: Path) -> dict[str, Any]:
    """Where a data set lies."""
    if name == "fruits":
        return {"data": (str(root / "fruits_nuts_labelme"),)}
    first, second, validation = (str(root / "coco_cc_instances" / file) for file in COCO)
    return {"data": (first, second), "val_data": (validation,)}


def predicted(model: Path, options: ReferTrainOptions, output: Path) -> str:
    """Names of classes asked of two photographs, drawn; what was found, in words."""
    dataset = read_refer((options.val_data or options.data)[-1])
    samples = [dataset[index] for index in range(2)]
    phrases = tuple(sorted({text for sample in samples for e in sample.expressions for text in e.texts}))[:6]
    pictures = tuple(Path(sample.image) for sample in samples if isinstance(sample.image, Path))
    predict_segmenter(
        ReferPredictOptions(
            images=pictures,
            phrases=phrases,
            model=str(model),
            output=output,
            generate=False,
            max_tiles=options.max_tiles,
        )
    )
    records = json.loads((output / "segmentations.json").read_text(encoding="utf-8"))
    found = sum(phrase["area"] > 0 for record in records for phrase in record["phrases"])
    drawn = len(list((output / "pictures").iterdir()))
    return f"{found} of {len(phrases) * len(pictures)} phrases found, {drawn} pictures drawn"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["coco", "fruits"])
    parser.add_argument("--model", default=None, help="a segmenter's folder; a small random one if not given")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--max-steps", type=int, default=None)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-tiles", type=int, default=1)
    parser.add_argument("--images", type=int, default=None, help="photographs measured; all if not given")
    parser.add_argument("--output", type=Path, default=None, help="keeps the run and the drawn pictures there")
    parser.add_argument("--whole", action="store_true", help="train every part; for small models")
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    arguments = parser.parse_args()
    root = Path(os.environ.get("DEIXIS_SHARED_DATA", DEFAULT_DATA))
    with tempfile.TemporaryDirectory() as scratch:
        output = arguments.output or Path(scratch)
        model = arguments.model or str(write_random_segmenter(Path(scratch) / "model"))
        options = ReferTrainOptions(
            **data_options(arguments.name, root),
            model=model,
            output=output,
            experiment_name=arguments.name,
            epochs=arguments.epochs,
            max_steps=arguments.max_steps,
            learning_rate=arguments.learning_rate,
            max_tiles=arguments.max_tiles,
            num_workers=0,
            max_val_images=arguments.images,
            evaluate_every=10,
            **(WHOLE if arguments.whole else {}),
        )
        started = time.perf_counter()
        result = finetune_segmenter(options)
        minutes = (time.perf_counter() - started) / 60
        assert result.teacher is not None
        assert result.before is not None
        assert result.after is not None
        assert result.outcome is not None
        own = ReferEvalOptions(
            data=options.data, model=str(result.teacher), max_tiles=options.max_tiles, max_images=arguments.images
        )
        everything = evaluate_segmenter(own).as_dict()
        said = predicted(result.teacher, options, output / f"{arguments.name}_pictures")
    rows = [
        [label, metrics["phrases"], *(f"{100 * metrics[name]:.1f}" for name in ("gIoU", "cIoU"))]
        for label, metrics in (
            (f"{result.outcome.reported_on}, before", result.before),
            (f"{result.outcome.reported_on}, after", result.after),
            (
                "training photographs and those held out, after" if not options.val_data else "training, after",
                everything,
            ),
        )
    ]
    start = arguments.model or "a small random segmenter"
    body = (
        f"From {start}, {'all parts' if arguments.whole else 'default parts'}: {arguments.epochs} epochs"
        + (f", {arguments.max_steps} steps at most" * bool(arguments.max_steps))
        + f", rate {arguments.learning_rate:g}, {minutes:.1f} minutes. {said}.\n\n"
        + (f"After is {OPTIMISTIC}.\n\n" if result.outcome.reported_on == "validation" else "")
        + table(["", "phrases", "gIoU %", "cIoU %"], rows)
    )
    print(body)
    if arguments.write:
        title = f"Segmenter on real photographs: {arguments.name}, torch {torch.__version__}"
        print(f"wrote {write_result(f'real_segmenter_{arguments.name}', title, body)}")


if __name__ == "__main__":
    main()
