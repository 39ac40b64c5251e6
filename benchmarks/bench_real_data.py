"""Real photographs: fine-tune the built-in detector with the default recipe, beside transformers' own loss.

    python benchmarks/bench_real_data.py raccoon            # or cards; --epochs 1 for a quick look
    python benchmarks/bench_real_data.py raccoon --write

Three measurements with one evaluator: the built-in detector as it is; after `deixis detect train` with its default
recipe; and after the same number of steps on the same batches, from the same weights, with the same parts frozen, the
same AdamW groups and schedule, by transformers' own model and loss as it comes (auxiliary losses off, and an encoder
term that reaches none of the encoder's heads).
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
from accelerate import Accelerator
from harness import hardware
from transformers import MMGroundingDinoForObjectDetection

from deixis.data.readers import read_dataset
from deixis.data.split import split_by_group
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.inference.detector import Detector, load_detector
from deixis.models.builtin import builtin_folder
from deixis.models.freezing import freeze, part_of
from deixis.models.grounding_dino import load_grounding_dino
from deixis.recipes.detector_data import TrainingPrompts, training_feed
from deixis.recipes.finetune_detector import finetune
from deixis.recipes.options import DetectTrainOptions
from deixis.recipes.policy import learning_rates, resolve, warmup_steps
from deixis.records import Dataset
from deixis.training.loop import seed_step
from deixis.training.optim import build_adamw, parameter_groups, set_learning_rate
from deixis.training.schedule import Schedule

RESULTS = Path(__file__).parent / "results"
DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"


def data_options(name: str, root: Path) -> dict[str, Any]:
    """Where a data set lies. The raccoons have no test set: a fifth is held out, duplicates on one side."""
    if name == "raccoon":
        return {"data": str(root / "raccoon_voc")}
    return {"data": str(root / "playing_cards_voc" / "train"), "val_data": str(root / "playing_cards_voc" / "test")}


def read_both(options: DetectTrainOptions) -> tuple[Dataset, Dataset]:
    """The training and validation data that the command uses."""
    training = read_dataset(options.data, masks=False)
    if options.val_data:
        return training, read_dataset(options.val_data, masks=False)
    return split_by_group(training, 0.8, 0)


def train_with_transformers(options: DetectTrainOptions, training: Dataset) -> Detector:
    """The same start, data and steps with transformers' model and loss; the result in our detector, to measure it."""
    folder = builtin_folder("detector")
    theirs = MMGroundingDinoForObjectDetection.from_pretrained(folder).train()
    bundle = load_grounding_dino(folder)
    rates = learning_rates(options)
    freeze(theirs, [part for part, rate in rates.items() if rate == 0])
    prompts = TrainingPrompts(bundle.prompt_tokenizer, bundle.model.max_text_len, shuffle=False)
    feed = training_feed(training, options, prompts, bundle.image_size)
    accelerator = Accelerator(cpu=True)
    steps = feed.steps_per_epoch(1)
    total = steps * (options.epochs or 1)
    optimizer = build_adamw(parameter_groups(theirs.named_parameters(), part_of, rates, options.weight_decay))
    schedule = Schedule(options.schedule, total, warmup_steps(options, total), options.lr_drop_at)
    done = 0
    for epoch in range(options.epochs or 1):
        for (batch,) in feed.groups(epoch, 0, accelerator):
            seed_step(options.seed, done, 0)
            set_learning_rate(optimizer, schedule.factor(done))
            labels = [{"class_labels": t.class_ids, "boxes": t.boxes_cxcywh_norm} for t in batch.targets]
            pixel_values = bundle.normalise(batch.pixels_u8, batch.pixel_mask)
            outputs = theirs(
                pixel_values,
                batch.input_ids,
                attention_mask=batch.attention_mask.long(),
                pixel_mask=batch.pixel_mask.long(),
                labels=labels,
            )
            outputs.loss.backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), options.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
    weights = theirs.state_dict()
    bundle.model.load_state_dict({name: weights[name] for name in bundle.model.state_dict()})
    return Detector(bundle, torch.device("cpu"))


def row(label: str, metrics: DetectionMetrics, minutes: float) -> str:
    """A line of the table."""
    figures = metrics.as_dict()
    return f"| {label} | {figures['AP']:.3f} | {figures['AP50']:.3f} | {minutes:.1f} |"


def measure_ours(asked: DetectTrainOptions, validation: Dataset) -> list[str]:
    """Before, best epoch and last epoch of the command."""
    lines = [row("built-in detector, as it is", load_detector("builtin").evaluate(validation)[0], 0.0)]
    started = time.perf_counter()
    finished = finetune(asked)
    minutes = (time.perf_counter() - started) / 60
    assert finished.after is not None
    last = last_evaluation(finished.folder)
    lines.append(row("deixis, best epoch", finished.after, minutes))
    lines.append(f"| deixis, last epoch | {last['AP']:.3f} | {last['AP50']:.3f} | {minutes:.1f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["raccoon", "cards"])
    parser.add_argument("--part", choices=["both", "deixis", "transformers"], default="both")
    parser.add_argument("--epochs", type=int, default=None, help="the recipe's own if not given")
    parser.add_argument("--learning-rate", type=float, default=None, help="the recipe's own if not given")
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    arguments = parser.parse_args()
    root = Path(os.environ.get("DEIXIS_SHARED_DATA", DEFAULT_DATA))
    with tempfile.TemporaryDirectory() as output:
        asked = DetectTrainOptions(
            **data_options(arguments.name, root),
            output=Path(output),
            epochs=arguments.epochs,
            learning_rate=arguments.learning_rate,
        )
        training, validation = read_both(asked)
        options = resolve(asked, len(training))
        lines = [] if arguments.part == "transformers" else measure_ours(asked, validation)
    if arguments.part != "deixis":
        started = time.perf_counter()
        theirs = train_with_transformers(options, training).evaluate(validation)[0]
        lines.append(row("transformers' model and loss, last epoch", theirs, (time.perf_counter() - started) / 60))
    head = [
        f"# {arguments.name}: {len(training)} training and {len(validation)} validation photographs",
        "",
        f"Built-in detector, recipe `{options.recipe}`: {options.epochs} epochs, batch {options.batch_size}, rate "
        f"{options.learning_rate}, seed {options.seed}; torch {torch.__version__}, {torch.get_num_threads()} threads.",
        "",
        "| | AP | AP50 | minutes |",
        "|---|---|---|---|",
    ]
    print("\n".join([*head, *lines]))
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"real_{arguments.name}_{hardware()}_{time.strftime('%Y-%m-%d')}.md"
        before = [] if path.exists() else head  # a part measured later is added to the table
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join([*before, *lines]) + "\n")


def last_evaluation(folder: Path) -> dict[str, Any]:
    """The last evaluation that a run logged."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, Any] = [record for record in records if record["kind"] == "evaluation"][-1]
    return found


if __name__ == "__main__":
    main()
