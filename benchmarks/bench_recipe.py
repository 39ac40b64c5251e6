"""How far a small data set moves the weights: AP on new and on old names, by rate, effective batch and number of steps.

    python benchmarks/bench_recipe.py raccoon --seeds 3 --write
    python benchmarks/bench_recipe.py cards --variants today 'batch 16' --outcomes runs.jsonl --write

Each run trains the built-in detector on photographs and measures its last epoch on held-out ones and on generated
scenes of names that it knew before (`unseen_pairs`). "Way" is the rate times the number of steps, in units of
MMDetection's cat recipe (5e-5 for 160 steps); "moved" is the length of the change of all trained weights, as a share
of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from harness import hardware
from safetensors.torch import load_file

from deixis.models.builtin import builtin_folder
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.detect.train import finetune

RESULTS = Path(__file__).parent / "results"
DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"
DATA = {"raccoon": "raccoon_voc", "cards": "playing_cards_voc/train"}
OLD = "scenes:split=unseen_pairs,count=40,seed=3"
CAT_WAY = 5e-5 * 160


@dataclass(frozen=True)
class Variant:
    """What a recipe decides: batches of 4 are joined into one step."""

    learning_rate: float
    joined: int
    epochs: int
    drop_at: float


VARIANTS = {
    "today": Variant(1e-4, 1, 20, 0.85),
    "half the rate": Variant(5e-5, 1, 20, 0.75),
    "half the epochs": Variant(1e-4, 1, 10, 0.75),
    "batch 16": Variant(1e-4, 4, 20, 0.75),
    "batch 16, half the rate": Variant(5e-5, 4, 20, 0.75),
}


@dataclass(frozen=True)
class Outcome:
    """Of one run."""

    new: float
    old: float
    moved: float


def run(data: Path, variant: Variant, seed: int, *, images: int, short_px: int, most: int) -> Outcome:
    """Train and measure the last epoch."""
    with tempfile.TemporaryDirectory() as output:
        options = DetectTrainOptions(
            data=(str(data),),
            model="builtin",
            output=Path(output),
            recipe="small",
            learning_rate=variant.learning_rate,
            gradient_accumulation_steps=variant.joined,
            epochs=variant.epochs,
            lr_drop_at=variant.drop_at,
            epoch_length=images,
            image_size=(short_px, 2 * short_px),
            evaluate_every=variant.epochs,
            forgetting_data=OLD,
            forgetting_sweep=(),
            forgetting_max_images=most,
            seed=seed,
            baseline=False,
            report=False,
        )
        result = finetune(options)
        assert result.forgetting is not None
        tuned = load_file(result.folder / "teachers" / "grounding_dino" / "model.safetensors")
    last = result.forgetting.points[-1]
    return Outcome(last.AP_new, last.AP_old, moved(tuned))


def kept(file: Path | None, key: dict[str, object], make: Callable[[], Outcome]) -> Outcome:
    """The outcome that `file` holds for `key`, or what `make` returns, added to it: a series may be interrupted."""
    lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
    for line in map(json.loads, lines):
        if line["key"] == key:
            return Outcome(**line["outcome"])
    started = time.perf_counter()
    outcome = make()
    if file:
        line = {"key": key, "outcome": asdict(outcome), "seconds": round(time.perf_counter() - started)}
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    return outcome


def moved(tuned: dict[str, torch.Tensor]) -> float:
    """Length of the change over the length of the weights that changed."""
    first = load_file(builtin_folder("detector") / "model.safetensors")
    changed = [(first[name], tensor) for name, tensor in tuned.items() if not torch.equal(first[name], tensor)]
    pairs = [(b - a, a) for a, b in changed]
    change, size = (sum(float(t.pow(2).sum()) for t in tensors) for tensors in zip(*pairs, strict=True))
    return float((change / size) ** 0.5)


def row(name: str, variant: Variant, images: int, outcomes: list[Outcome]) -> str:
    """A line of the table: means and, of several seeds, standard deviations."""

    def figure(values: list[float]) -> str:
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.3f}{spread}"

    steps = -(-images // (4 * variant.joined)) * variant.epochs
    way = variant.learning_rate * steps / CAT_WAY
    columns = [figure([getattr(outcome, part) for outcome in outcomes]) for part in ("new", "old", "moved")]
    settings = f"{variant.learning_rate:g} | {4 * variant.joined} | {steps} | {variant.drop_at:.0%} | {way:.1f}"
    return f"| {name} | {settings} | {' | '.join(columns)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DATA)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=40, help="training images of an epoch")
    parser.add_argument("--epochs", type=int, default=None, help="in place of the variants' own, for a quick look")
    parser.add_argument("--short-px", type=int, default=96, help="short side of the images; the model's own is 128")
    parser.add_argument("--most", type=int, default=100, help="images measured of each set")
    parser.add_argument("--outcomes", type=Path, help="a file of finished runs, one line each, which are not run again")
    parser.add_argument("--write", action="store_true", help="add the table to benchmarks/results")
    arguments = parser.parse_args()
    data = Path(os.environ.get("DEIXIS_SHARED_DATA", DEFAULT_DATA)) / DATA[arguments.name]
    lines = [
        f"## {arguments.name}: {arguments.images} images per epoch, {arguments.short_px} px, {arguments.seeds} seeds",
        "",
        "| | rate | effective batch | steps | drop at | way | AP new | AP old | moved |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in arguments.variants:
        variant = replace(VARIANTS[name], epochs=arguments.epochs or VARIANTS[name].epochs)
        size = {"images": arguments.images, "short_px": arguments.short_px}
        outcomes = [
            kept(
                arguments.outcomes,
                {"data": arguments.name, **asdict(variant), "seed": seed, **size},
                partial(run, data, variant, seed, most=arguments.most, **size),
            )
            for seed in range(arguments.seeds)
        ]
        lines.append(row(name, variant, arguments.images, outcomes))
        print(lines[-1], flush=True)
    print("\n".join(lines))
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        with (RESULTS / f"recipe_{hardware()}_{time.strftime('%Y-%m-%d')}.md").open("a", encoding="utf-8") as file:
            file.write("\n".join([*lines, "", ""]))


if __name__ == "__main__":
    main()
