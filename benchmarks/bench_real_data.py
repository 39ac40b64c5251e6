"""Real photographs: fine-tune the built-in detector with the default recipe, beside transformers' own loss.

    python benchmarks/bench_real_data.py raccoon --part deixis --seeds 3 --write    # or cards; --epochs 1 for a look
    python benchmarks/bench_real_data.py raccoon --part transformers --write

Measured with one evaluator on photographs that neither trained nor chose an epoch: the built-in detector as it is;
after `deixis detect train` with its default recipe, the epoch that was best on validation and the last; and after the
same number of steps on the same batches, from the same weights, with the same parts frozen, the same AdamW groups and
schedule, by transformers' own model and loss as it comes (auxiliary losses off, and an encoder term that reaches none
of the encoder's heads). Of several seeds, the mean and the standard deviation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from harness import hardware
from transformers import MMGroundingDinoForObjectDetection

from deixis.inference.detect.detector import Detector
from deixis.models.builtin import builtin_folder
from deixis.models.freezing import freeze, part_of
from deixis.models.grounding_dino import load_grounding_dino
from deixis.options.detect_train import (
    DetectData,
    DetectImages,
    DetectLora,
    DetectParts,
    DetectTrainOptions,
)
from deixis.options.groups import Hardware, Loop
from deixis.recipes.detect.data.feed import training_feed
from deixis.recipes.detect.data.prompts import TrainingPrompts
from deixis.recipes.detect.data.sources import read_training_data
from deixis.recipes.detect.policy import learning_rates, resolve
from deixis.recipes.detect.train import finetune
from deixis.recipes.run.repeat import repeat_run
from deixis.records import Dataset
from deixis.training.optim import Schedule, build_adamw, parameter_groups, set_learning_rate
from deixis.training.processes import seed_step

RESULTS = Path(__file__).parent / "results"
DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"


def data_options(name: str, root: Path) -> dict[str, Any]:
    """Where a data set lies. Of the raccoons, test and validation photographs are held out, duplicates on one side."""
    if name == "raccoon":
        return {"data": (str(root / "raccoon_voc"),)}
    cards = root / "playing_cards_voc"
    return {"data": (str(cards / "train"),), "test_data": str(cards / "test")}


def train_with_transformers(options: DetectTrainOptions, training: Dataset) -> Detector:
    """The same start, data and steps with transformers' model and loss; the result in our detector, to measure it."""
    folder = builtin_folder("detector")
    theirs = MMGroundingDinoForObjectDetection.from_pretrained(folder).train()
    bundle = load_grounding_dino(folder)
    rates = learning_rates(options.group(DetectParts), options.group(DetectLora), options.learning_rate)
    freeze(theirs, [part for part, rate in rates.items() if rate == 0])
    prompts = TrainingPrompts(bundle.prompt_tokenizer, bundle.model.max_text_len, shuffle=False)
    feed = training_feed(
        training,
        prompts,
        bundle.image_size,
        data=options.group(DetectData),
        images=options.group(DetectImages),
        loop=options.group(Loop),
        hardware=options.group(Hardware),
        seed=options.seed,
    )
    accelerator = Accelerator(cpu=True)
    steps = feed.steps_per_epoch(1)
    total = min(steps * (options.epochs or 1), options.max_steps or steps * (options.epochs or 1))
    optimizer = build_adamw(
        parameter_groups(theirs.named_parameters(), part_of, rates, weight_decay=options.weight_decay)
    )
    schedule = Schedule(options.schedule, total, options.warmup(total), options.lr_drop_at)
    done = 0
    for epoch in range(options.epochs or 1):
        for batches in feed.groups(epoch, 0, accelerator):
            if done == total:
                break
            seed_step(options.seed, done, 0)
            set_learning_rate(optimizer, schedule.factor(done))
            for batch in batches:
                labels = [{"class_labels": t.class_ids, "boxes": t.boxes_cxcywh_norm} for t in batch.targets]
                pixel_values = bundle.normalise(batch.pixels_u8, batch.pixel_mask)
                outputs = theirs(
                    pixel_values,
                    batch.input_ids,
                    attention_mask=batch.attention_mask.long(),
                    pixel_mask=batch.pixel_mask.long(),
                    labels=labels,
                )
                (outputs.loss / len(batches)).backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), options.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
    weights = theirs.state_dict()
    bundle.model.load_state_dict({name: weights[name] for name in bundle.model.state_dict()})
    return Detector(bundle, torch.device("cpu"))


def figure(values: Sequence[float]) -> str:
    """Mean, and of several values their standard deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def row(label: str, metrics: Sequence[Mapping[str, Any]], minutes: float | None = None) -> str:
    """A line of the table, of the metrics of each seed."""
    took = "" if minutes is None else f"{minutes:.1f}"
    return (
        f"| {label} | {figure([one['AP'] for one in metrics])} | {figure([one['AP50'] for one in metrics])} | {took} |"
    )


def measure_ours(asked: DetectTrainOptions) -> list[str]:
    """Before, best epoch and last epoch of the command, for each seed."""
    started = time.perf_counter()
    outcomes = list(repeat_run(asked, finetune, ("AP", "AP50")).outcomes.values())
    minutes = (time.perf_counter() - started) / 60
    before, best, last = (
        [outcome.reported(getattr(outcome, state)) or {} for outcome in outcomes]
        for state in ("before", "best", "last")
    )
    epochs = ", ".join(str(outcome.best.epoch) for outcome in outcomes)
    return [
        row("built-in detector, as it is", before[:1]),
        row(f"deixis, best epoch on validation ({epochs})", best, minutes),
        row("deixis, last epoch", last, minutes),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["raccoon", "cards"])
    parser.add_argument("--part", choices=["both", "deixis", "transformers"], default="both")
    parser.add_argument("--seeds", type=int, default=1, help="of deixis's runs")
    parser.add_argument("--epochs", type=int, default=None, help="the recipe's own if not given")
    parser.add_argument("--images", type=int, default=None, help="training images of an epoch; all if not given")
    parser.add_argument("--photographs", type=int, default=None, help="of the data set; all if not given")
    parser.add_argument("--learning-rate", type=float, default=None, help="the recipe's own if not given")
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    arguments = parser.parse_args()
    root = Path(os.environ.get("DEIXIS_SHARED_DATA", DEFAULT_DATA))
    with tempfile.TemporaryDirectory() as output:
        asked = DetectTrainOptions(
            **data_options(arguments.name, root),
            model="builtin",
            output=Path(output),
            epochs=arguments.epochs,
            epoch_length=arguments.images,
            learning_rate=arguments.learning_rate,
            seeds=arguments.seeds,
            sample=arguments.photographs,
        )
        data = read_training_data(asked)
        options = resolve(asked, len(data.training))
        lines = [] if arguments.part == "transformers" else measure_ours(asked)
    if arguments.part != "deixis":
        started = time.perf_counter()
        theirs = train_with_transformers(options, data.training).evaluate(data.reported)[0].as_dict()
        minutes = (time.perf_counter() - started) / 60
        lines.append(row("transformers' model and loss, last epoch, seed 0", [theirs], minutes))
    head = [
        f"# {arguments.name}: {len(data.training)} training, {len(data.validation)} validation and "
        f"{len(data.reported)} test photographs",
        "",
        f"Built-in detector, recipe `{options.recipe}`: {options.epochs} epochs, batches of {options.batch_size}, "
        f"{options.gradient_accumulation_steps} per step, rate {options.learning_rate}, drop at "
        f"{options.lr_drop_at:.0%}, seeds 0 to {arguments.seeds - 1}; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads. Figures are those on test data.",
        "",
        "| | AP | AP50 | minutes in all |",
        "|---|---|---|---|",
    ]
    print("\n".join([*head, *lines]))
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"real_{arguments.name}_{hardware()}_{time.strftime('%Y-%m-%d')}.md"
        before = [] if path.exists() else head  # a part measured later is added to the table
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join([*before, *lines]) + "\n")


if __name__ == "__main__":
    main()
