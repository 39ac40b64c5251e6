"""What fine-tuning the built-in detector forgets, and what part of the way back brings: AP on new and on old names.

    python benchmarks/bench_forgetting.py demo --write       # generated scenes, as `deixis demo` runs
    python benchmarks/bench_forgetting.py raccoon --write    # photographs, five epochs of the default recipe

The old names are colour-shape pairs that the built-in detector knows (`unseen_pairs`). `--lora` trains adapters.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from harness import fewer, hardware

from deixis.evaluation.trade_off import knee
from deixis.options.demo import DemoOptions
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.demo import demo_training
from deixis.recipes.detect.train import FinetuneResult, finetune

RESULTS = Path(__file__).parent / "results"
DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"
MEASURED = ("val_data", "test_data", "forgetting_data")
OLD = "scenes:split=unseen_pairs,count=100,seed=3"


def options_of(name: str, output: Path) -> DetectTrainOptions:
    """The run that is measured."""
    if name == "demo":
        return demo_training(DemoOptions(output=output))
    data = Path(os.environ.get("DEIXIS_SHARED_DATA", DEFAULT_DATA)) / "raccoon_voc"
    return DetectTrainOptions(
        data=(str(data),), model="builtin", output=output, epochs=5, forgetting_data=OLD, report_images=0
    )


def lines_of(name: str, options: DetectTrainOptions, result: FinetuneResult, minutes: float) -> list[str]:
    """The result as a section of the file."""
    facts = result.forgetting
    assert facts is not None
    assert result.outcome is not None
    best = knee(facts.points)
    rows = [
        f"| {p.weight:g}{' (knee)' if p == best else ''} | {p.AP_new:.3f} | {p.AP_old:.3f} | {p.balance:.3f} |"
        for p in facts.points
    ]
    return [
        f"## {name}{', LoRA' if options.lora else ''}",
        "",
        f"{options.epochs} epochs, batch {options.batch_size}, seed {options.seed}; {facts.new_images} new images "
        f"({result.outcome.reported_on} data), "
        f"{facts.old_images} old ones ({facts.old_name}); torch {torch.__version__}, {minutes:.0f} minutes in all on a "
        f"machine with other work (load {os.getloadavg()[0]:.0f}).",
        "",
        "| weight | AP new | AP old | harmonic mean |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["demo", "raccoon"])
    parser.add_argument("--lora", action="store_true", help="train adapters")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--images", type=int, default=None, help="training images of an epoch; all if not given")
    parser.add_argument("--most", type=int, default=None, help="images of each set measured; all if not given")
    parser.add_argument("--write", action="store_true", help="add the result to benchmarks/results")
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        options = replace(options_of(arguments.name, Path(output)), lora=arguments.lora)
        options = replace(options, epochs=arguments.epochs or options.epochs, epoch_length=arguments.images)
        if arguments.most:
            given = {name: getattr(options, name) for name in MEASURED}
            measured = {name: fewer(data, arguments.most) for name, data in given.items() if data}
            options = replace(options, forgetting_max_images=arguments.most, **measured)
        result = finetune(options)
    lines = lines_of(arguments.name, options, result, (time.perf_counter() - started) / 60)
    print("\n".join(lines))
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"forgetting_{hardware()}_{time.strftime('%Y-%m-%d')}.md"
        head = [] if path.exists() else ["# Forgetting: from the built-in detector (0) to the tuned one (1)", ""]
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    main()
