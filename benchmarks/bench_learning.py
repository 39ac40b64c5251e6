"""What a few pictures teach, and what is forgotten meanwhile: every method at the same number of optimiser steps.

    python benchmarks/bench_learning.py --runs learning.jsonl                       # 10 pictures, all methods, 3 seeds
    python benchmarks/bench_learning.py --runs learning.jsonl --methods small edit --pictures 5 30 --seeds 0
    python benchmarks/bench_learning.py --runs learning.jsonl --ground cards --methods small prompt transformers
    python benchmarks/bench_learning.py --runs learning.jsonl --write               # table and plot of what is there

The built-in detector is fine-tuned on generated scenes of shapes that it has never seen. AP on new names is that of
other scenes of these shapes, AP on old names that of colour-shape pairs it knows. `--ground` chooses photographs in
their place, or scenes of names that it knows, with all boxes or with half of them. Each finished run is a line of
`--runs`; runs that are there are not repeated, so the command can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_real_data import train_with_transformers
from harness import RESULTS, hardware
from learning_grounds import NEW_SCENES, OLD_SCENES, Ground, ground

from deixis.data.opened import read_dataset
from deixis.inference.detect.detector import Detector, load_detector
from deixis.models.checkpoints import load_any_detector, save_detector
from deixis.models.interpolation import interpolate
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.detect.policy import resolve
from deixis.recipes.detect.train import finetune

GROUNDS = ("scenes", "raccoon", "cards", "known", "halved")
METHODS: dict[str, dict[str, Any]] = {
    "small": {},
    "few": {"recipe": "few"},
    "strong": {"augment": "strong"},
    "edit": {"keep": "edit", "learning_rate": 1e-3},
    "prompt": {"keep": "prompt"},
    "prompt, strong": {"keep": "prompt", "augment": "strong"},
    "prompt, light": {"keep": "prompt", "augment": "light"},
    "prompt, rate 3e-2": {"keep": "prompt", "learning_rate": 3e-2},
    "prompt, then small": {"keep": "prompt"},
    "lora": {"lora": True, "learning_rate": 1e-3},
    "replay": {"keep": "replay", "replay_data": "scenes:split=seen_pairs,count=60,seed=11"},
    "repair": {"repair_missing": True},
    "repair as objects": {"repair_missing": True, "repair_as": "objects"},
    "parallel": {"decoder": "parallel"},
    "transformers": {},
}
"""Options of each method beside those of a plain run; `base` is the model before training, `transformers` trains with
that library's own model and loss, `prompt, then small` is two runs of half the steps."""
FIGURES = ("AP_new", "AP_old", "AP_new_at_FPR_bg", "AP_old_at_FPR_bg")


def options_of(method: str, on: Ground, seed: int, *, steps: int, output: Path) -> DetectTrainOptions:
    """The run of a method."""
    plain = DetectTrainOptions(
        data=(on.training,),
        val_data=on.chosen_on,
        model="builtin",
        output=output,
        epochs=steps,
        max_steps=steps,
        evaluate_every=steps,
        val_loss_images=0,
        baseline=False,
        report=False,
        log_with=("none",),
        num_workers=0,
        gpus=0,
        seed=seed,
    )
    return replace(plain, **METHODS[method])


def measured(detector: Detector, on: Ground, most: int | None) -> dict[str, float]:
    """AP on new and on old names, and the same where false positives on absent names are few."""
    figures = {}
    for what, data in (("new", on.new), ("old", on.old)):
        metrics, _ = detector.evaluate(read_dataset(data)[:most], 4)
        figures |= {f"AP_{what}": metrics.AP, f"AP_{what}_at_FPR_bg": metrics.AP_at_FPR_bg}
    return figures


def run(
    method: str, name: str, pictures: int, seed: int, *, steps: int, most: int | None = None
) -> list[dict[str, Any]]:
    """Train and measure once; of a plain run also the weights halfway to it, which are those of --keep interpolate."""
    started = time.perf_counter()
    key = {"method": method, "ground": name, "pictures": pictures, "seed": seed, "steps": steps, "most": most}

    def found(method: str, detector: Detector, seconds: float) -> dict[str, Any]:
        day = time.strftime("%Y-%m-%d")
        return {**key, "method": method, **measured(detector, on, most), "seconds": round(seconds), "day": day}

    with tempfile.TemporaryDirectory() as folder:
        on = ground(name, pictures, seed, Path(folder))
        if method == "base":
            return [found(method, load_detector("builtin", "cpu"), 0)]
        options = options_of(method, on, seed, steps=steps, output=Path(folder) / "run")
        if method == "transformers":
            training = read_dataset(on.training)
            theirs = train_with_transformers(resolve(options, len(training)), training)
            return [found(method, theirs, time.perf_counter() - started)]
        teacher = trained(options, in_two=method == "prompt, then small")
        runs = [found(method, load_detector(teacher, "cpu"), time.perf_counter() - started)]
        if method == "small":
            between = interpolate(load_any_detector("builtin"), load_any_detector(teacher), 0.5)
            save_detector(between, Path(folder) / "between")
            runs.append(found("interpolate", load_detector(Path(folder) / "between", "cpu"), 0))
    return runs


def trained(options: DetectTrainOptions, *, in_two: bool) -> Path:
    """The model of a run; or of two of half the steps, the second a plain one that starts from the first."""
    if in_two:
        half = (options.max_steps or 2) // 2
        options = replace(options, epochs=half, max_steps=half, evaluate_every=half)
        first = trained(replace(options, output=options.output / "first"), in_two=False)
        options = replace(options, model=str(first), keep="none", output=options.output / "second")
    teacher = finetune(options).teacher
    assert teacher is not None
    return teacher


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ground_of(found: Mapping[str, Any]) -> str:
    return str(found["ground"])


def key_of(found: Mapping[str, Any]) -> tuple[Any, ...]:
    return found["method"], ground_of(found), found["pictures"], found["seed"], found["steps"], found.get("most")


def table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mean and spread (largest minus smallest, halved) of each method, by ground and number of pictures."""
    lines = [
        "| ground | pictures | method | AP new | AP old | AP new at FPR_bg 0.05 | AP old at FPR_bg 0.05 | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
    for found in sorted(runs, key=lambda found: (GROUNDS.index(ground_of(found)), found["pictures"])):
        groups.setdefault((ground_of(found), found["pictures"], found["method"]), []).append(found)
    for (on, pictures, method), of in groups.items():
        cells = []
        for name in FIGURES:
            values = [float(found[name]) for found in of]  # of one name, none is ever absent: FPR_bg is not defined
            spread = f"{statistics.mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"
            cells.append("-" if math.isnan(values[0]) else spread)
        lines.append(f"| {on} | {pictures or ''} | {method} | {' | '.join(cells)} | {len(of)} |")
    return lines


def plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """New against old names on generated scenes: one point per method and number of pictures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = [found for found in runs if ground_of(found) == "scenes"]
    counts = sorted({found["pictures"] for found in runs if found["pictures"]})
    figure = Figure(figsize=(5 * max(len(counts), 1), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for number, pictures in enumerate(counts, start=1):
        axes = figure.add_subplot(1, len(counts), number)
        for method in dict.fromkeys(found["method"] for found in runs):
            of = [found for found in runs if found["method"] == method and found["pictures"] in (pictures, 0)]
            if not of:
                continue
            old, new = (statistics.mean(found[name] for found in of) for name in ("AP_old", "AP_new"))
            axes.scatter(old, new)
            axes.annotate(method, (old, new), textcoords="offset points", xytext=(5, 4), fontsize=8)
        axes.set(title=f"{pictures} pictures", xlabel="AP on old names", ylabel="AP on new names")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def write(runs: Sequence[Mapping[str, Any]], steps: int, name: str) -> Path:
    """The table and the plot as files of `results/`."""
    runs = [found for found in runs if found["steps"] in (steps, 0)]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}_{hardware()}_{time.strftime('%Y-%m-%d')}.md"
    picture = RESULTS / f"{name}_{hardware()}.png"
    plot(runs, picture)
    minutes = sum(found["seconds"] for found in runs) / 60
    head = [
        "# Few pictures, new names: what is learnt and what is forgotten",
        "",
        f"The built-in detector, {steps} optimiser steps of 4 images for every method; scenes: {NEW_SCENES}; old "
        f"names: {OLD_SCENES}; ± is half the range over the seeds. {len(runs)} lines, {minutes:.0f} minutes in "
        "all beside other work.",
        "",
    ]
    counts = dict.fromkeys((ground_of(found), found["most"]) for found in runs if found.get("most"))
    head += [f"Of {on}, the first {most} pictures of each set are measured.\n" for on, most in counts]
    notes = dict.fromkeys(str(found["from"]) for found in runs if "from" in found)
    path.write_text(
        "\n".join(
            [
                *head,
                *(f"{note}\n" for note in notes),
                *table(runs),
                "",
                f"![AP on new against old names]({picture.name})",
            ]
        )
        + "\n"
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="file with one line per finished run")
    parser.add_argument("--methods", nargs="+", default=["base", *METHODS], choices=["base", *METHODS])
    parser.add_argument("--ground", choices=GROUNDS, default="scenes", help="what it learns and is measured on")
    parser.add_argument("--pictures", nargs="+", type=int, default=[10])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps of every run")
    parser.add_argument("--most", type=int, default=None, help="pictures measured of each set; all if not given")
    parser.add_argument(
        "--write",
        nargs="?",
        const="learning",
        help="write what is finished to results/ under this name, train nothing",
    )
    arguments = parser.parse_args()
    if arguments.write:
        print(write(read_runs(arguments.runs), arguments.steps, arguments.write))
        return
    for pictures in arguments.pictures:
        for seed in arguments.seeds:
            for method in arguments.methods:
                picked, drawn, steps = (pictures, seed, arguments.steps) if method != "base" else (0, 0, 0)
                key = (method, arguments.ground, picked, drawn, steps, arguments.most)
                if key in map(key_of, read_runs(arguments.runs)):
                    continue
                found = run(method, arguments.ground, picked, drawn, steps=steps, most=arguments.most)
                lines = list(map(json.dumps, found))
                with arguments.runs.open("a", encoding="utf-8") as file:
                    file.write("\n".join([*lines, ""]))
                print(*lines, sep="\n", flush=True)
    print("\n".join(table(read_runs(arguments.runs))))


if __name__ == "__main__":
    main()
