"""What a few pictures teach, and what is forgotten meanwhile: every method at the same number of optimiser steps.

    python benchmarks/bench_learning.py --runs learning.jsonl                       # 10 pictures, all methods, 3 seeds
    python benchmarks/bench_learning.py --runs learning.jsonl --methods small edit --pictures 5 30 --seeds 0
    python benchmarks/bench_learning.py --runs learning.jsonl --write               # table and plot of what is there

The built-in detector is fine-tuned on generated scenes of shapes that it has never seen. AP on new names is that of
other scenes of these shapes, AP on old names that of colour-shape pairs it knows. Each finished run is a line of
`--runs`; runs that are there are not repeated, so the command can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import RESULTS, hardware

from deixis.data.formats import read_dataset
from deixis.inference.detect.detector import load_detector
from deixis.models.checkpoints import load_any_detector, save_detector
from deixis.models.interpolation import interpolate
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.detect.train import finetune

NEW = "scenes:split=demo_val,count=60,seed=2"
OLD = "scenes:split=unseen_pairs,count=60,seed=3"
CHOSEN_ON = "scenes:split=demo_val,count=4,seed=7"  # one evaluation, at the end: nothing is chosen on it
METHODS: dict[str, dict[str, Any]] = {
    "small": {},
    "few": {"recipe": "few"},
    "strong": {"augment": "strong"},
    "edit": {"keep": "edit", "learning_rate": 1e-3},
    "prompt": {"keep": "prompt"},
    "lora": {"lora": True, "learning_rate": 1e-3},
    "replay": {"keep": "replay", "replay_data": "scenes:split=seen_pairs,count=60,seed=11"},
}
"""Options of each method beside those of a plain run; `base` is the model before training."""
FIGURES = ("AP_new", "AP_old", "AP_new_at_FPR_bg", "AP_old_at_FPR_bg")


def options_of(method: str, pictures: int, seed: int, *, steps: int, output: Path) -> DetectTrainOptions:
    """The run of a method."""
    plain = DetectTrainOptions(
        data=(f"scenes:split=demo_train,count={pictures},seed={100 + seed}",),
        val_data=CHOSEN_ON,
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


def measured(model: str | Path) -> dict[str, float]:
    """AP on new and on old names, and the same where false positives on absent names are few."""
    detector = load_detector(model, "cpu")
    figures = {}
    for what, data in (("new", NEW), ("old", OLD)):
        metrics, _ = detector.evaluate(read_dataset(data), 4)
        figures |= {f"AP_{what}": metrics.AP, f"AP_{what}_at_FPR_bg": metrics.AP_at_FPR_bg}
    return figures


def run(method: str, pictures: int, seed: int, steps: int) -> list[dict[str, Any]]:
    """Train and measure once; of a plain run also the weights halfway to it, which are those of --keep interpolate."""
    started = time.perf_counter()
    key = {"method": method, "pictures": pictures, "seed": seed, "steps": steps}
    if method == "base":
        return [{**key, **measured("builtin"), "seconds": round(time.perf_counter() - started)}]
    with tempfile.TemporaryDirectory() as folder:
        result = finetune(options_of(method, pictures, seed, steps=steps, output=Path(folder) / "run"))
        assert result.teacher is not None
        found = [{**key, **measured(result.teacher), "seconds": round(time.perf_counter() - started)}]
        if method == "small":
            between = interpolate(load_any_detector("builtin"), load_any_detector(result.teacher), 0.5)
            save_detector(between, Path(folder) / "between")
            found.append({**key, "method": "interpolate", **measured(Path(folder) / "between"), "seconds": 0})
    return found


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def key_of(found: Mapping[str, Any]) -> tuple[Any, ...]:
    return found["method"], found["pictures"], found["seed"], found["steps"]


def table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mean and spread (largest minus smallest, halved) of each method, by the number of pictures."""
    lines = [
        "| pictures | method | AP new | AP old | AP new at FPR_bg 0.05 | AP old at FPR_bg 0.05 | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for found in sorted(runs, key=lambda found: found["pictures"]):
        groups.setdefault((found["pictures"], found["method"]), []).append(found)
    for (pictures, method), of in groups.items():
        cells = []
        for name in FIGURES:
            values = [float(found[name]) for found in of]
            cells.append(f"{statistics.mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}")
        lines.append(f"| {pictures or ''} | {method} | {' | '.join(cells)} | {len(of)} |")
    return lines


def plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """New against old names: one point per method and number of pictures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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


def write(runs: Sequence[Mapping[str, Any]], steps: int) -> Path:
    """The table and the plot as files of `results/`."""
    runs = [found for found in runs if found["steps"] in (steps, 0)]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"learning_{hardware()}_{time.strftime('%Y-%m-%d')}.md"
    picture = RESULTS / f"learning_{hardware()}.png"
    plot(runs, picture)
    minutes = sum(found["seconds"] for found in runs) / 60
    head = [
        "# Few pictures, new names: what is learnt and what is forgotten",
        "",
        f"The built-in detector, {steps} optimiser steps of 4 images for every method; {NEW} and {OLD}; ± is half the "
        f"range over the seeds. {len(runs)} runs, {minutes:.0f} minutes in all beside other work.",
        "",
    ]
    path.write_text("\n".join([*head, *table(runs), "", f"![AP on new against old names]({picture.name})"]) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="file with one line per finished run")
    parser.add_argument("--methods", nargs="+", default=["base", *METHODS], choices=["base", *METHODS])
    parser.add_argument("--pictures", nargs="+", type=int, default=[10])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps of every run")
    parser.add_argument("--write", action="store_true", help="write what is finished to results/, train nothing")
    arguments = parser.parse_args()
    if arguments.write:
        print(write(read_runs(arguments.runs), arguments.steps))
        return
    for pictures in arguments.pictures:
        for seed in arguments.seeds:
            for method in arguments.methods:
                wanted = (method, pictures, seed, arguments.steps) if method != "base" else (method, 0, 0, 0)
                if wanted in map(key_of, read_runs(arguments.runs)):
                    continue
                lines = [json.dumps(found) for found in run(*wanted)]
                with arguments.runs.open("a", encoding="utf-8") as file:
                    file.write("\n".join([*lines, ""]))
                print(*lines, sep="\n", flush=True)
    print("\n".join(table(read_runs(arguments.runs))))


if __name__ == "__main__":
    main()
