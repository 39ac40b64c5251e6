"""Does a run on masks alone make the built-in segmenter forget how to talk, and does chat in the mix keep it?

    python benchmarks/chat_forgetting.py [--steps 40] [--folder chat_forgetting] [--write]

The built-in segmenter never learnt to chat, so it is taught first: short facts about colours and shapes, written here,
of which every sixth pairing is held out. From there it is fine-tuned on generated scenes, once on masks alone and once
with chat mixed in, one to one; both see the same number of scenes. All three runs are `deixis refer train`; the figures
are those of their `metrics.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS, hardware

COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "white", "black")
CORNERS = {"circle": "no", "triangle": "three", "square": "four", "star": "ten", "hexagon": "six", "pentagon": "five"}
SCENES = "scenes:split=refer_train,count=160,seed=5"
VALIDATION = "scenes:split=refer_seen,count=24,seed=9002"
BATCH = 4
OPTIONS = f"""
    --batch-size {BATCH} --learning-rate 1e-3 --lora-r 16 --lora-alpha 32 --gpus 0 --num-workers 0 --mask-points 1024
    --max-masks 2 --val-loss-images 0 --epochs 99 --evaluate-every 99 --no-report --log-with none
""".split()


def write_chat(folder: Path) -> tuple[Path, Path]:
    """(for training, held out): conversations about every pairing of a colour and a shape."""
    parts: dict[str, list[Any]] = {"chat": [], "held": []}
    pairs = [(colour, shape) for colour in COLOURS for shape in CORNERS]
    for number, (colour, shape) in enumerate(pairs):
        corners = CORNERS[shape]
        said = (
            f"What can you say about a {colour} {shape}?",
            f"A {colour} {shape} has {corners} corners. It is {colour}.",
            "How many corners does it have?",
            f"The {shape} has {corners} corners.",
        )
        turns = [{"from": ("human", "gpt")[turn % 2], "value": text} for turn, text in enumerate(said)]
        # One colour in six of every shape, each time another.
        part = "held" if number % 6 == number // 6 % 6 else "chat"
        parts[part].append({"id": str(number), "conversations": turns})
    files = []
    for name, entries in parts.items():
        files.append(folder / f"{name}.json")
        files[-1].write_text(json.dumps(entries))
    return files[0], files[1]


def train(output: Path, data: Sequence[str], model: str, *more: str) -> dict[str, Any]:
    """Lines of the run in the folder `output`, by kind. One that has ended is not run again."""
    log = output / "metrics.jsonl"
    if not (log.exists() and '"evaluation"' in log.read_text()):
        command = ["refer", "train", "--data", *data, "--val-data", VALIDATION, "--model", model, "--output", output]
        command += ["--overwrite", *OPTIONS, *more]
        subprocess.run([sys.executable, "-m", "deixis", *map(str, command)], check=True)
    return {line["kind"]: line for line in map(json.loads, log.read_text().splitlines())}


def row(name: str, before: dict[str, Any], after: dict[str, Any], steps: int) -> str:
    """Of the table: gIoU on held-out scenes and perplexity on held-out chat."""
    figures = [line[figure] for figure in ("gIoU", "chat_perplexity") for line in (before, after)]
    return f"| {name} | {steps} | {' | '.join(f'{figure:.3f}' for figure in figures)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help=f"of {BATCH} conversations, in each run on one data set")
    parser.add_argument("--images", type=int, default=24, help="held-out scenes measured")
    parser.add_argument("--folder", type=Path, default=Path("chat_forgetting"), help="of the runs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    chat, held = write_chat(options.folder)
    measured = ("--forgetting-data", str(held), "--max-val-images", str(options.images))
    once, twice = str(options.steps), str(2 * options.steps)
    first = train(options.folder / "taught", [str(chat)], "builtin", *measured, "--max-steps", once)
    taught = str(options.folder / "taught" / "teachers" / "sa2va")
    more = (*measured, "--no-baseline", "--max-steps")
    masks = train(options.folder / "masks", [SCENES], taught, *more, once)
    # Half of each batch is scenes: twice the steps show as many of them.
    mixed = train(options.folder / "mixed", [SCENES, str(chat)], taught, *more, twice, "--data-weights", "1", "1")
    start = first["evaluation"]
    lines = [
        "| run | steps | gIoU before | after | perplexity of held-out chat before | after |",
        "|---|---|---|---|---|---|",
        row("taught to chat", first["baseline"], start, options.steps),
        row("then masks alone", start, masks["evaluation"], options.steps),
        row("then masks and chat, 1 : 1", start, mixed["evaluation"], 2 * options.steps),
    ]
    print("\n".join(lines))
    if options.write:
        file = RESULTS / f"chat_forgetting_{hardware()}_{time.strftime('%Y-%m-%d')}.md"
        file.write_text("\n".join(["# Forgetting of conversation, and chat in the mix against it", "", *lines, ""]))


if __name__ == "__main__":
    main()
