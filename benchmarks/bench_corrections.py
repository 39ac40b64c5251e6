"""What corrections buy: AP of a run on spoiled labels, and of the same run on the labels that a review corrected.

    python benchmarks/bench_corrections.py --runs corrections.jsonl --seeds 0            # one cell: two trainings
    python benchmarks/bench_corrections.py --runs corrections.jsonl --seeds 0 1 2
    python benchmarks/bench_corrections.py --runs corrections.jsonl --write              # the table of what is there

Generated pictures of shapes that the built-in detector has never seen; of their boxes a share is spoiled, in equal
parts forgotten, given another name, and moved by a sixth of their size. An annotator who knows the truth reviews them
all. `--data review.db#before` trains on what was there, `--data review.db --compare-with` that run on what was left.
Each seed is a line of `--runs`; seeds that are there are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, fewer, hardware
from learning_grounds import NEW_SCENES

import deixis
from deixis.data.formats.review.read import corrections
from deixis.data.opened import opened
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.detect.train import finetune
from deixis.records import Instances, Sample, SampleList
from deixis.review.build import build_review
from deixis.review.simulated import answer_image

KEY = ("seed", "pictures", "spoiled", "steps", "keep", "most")
CHANGED = ("renamed", "moved", "drawn", "rejected")


def spoilt(sample: Sample, share: float, draw: np.random.Generator) -> Sample:
    """A picture of whose boxes a share is forgotten, renamed or moved."""
    boxes, classes, kept = [], [], sample.instances
    for box, name in zip(kept.boxes_xyxy_px, kept.class_ids.tolist(), strict=True):
        how = draw.choice(["right", "gone", "renamed", "moved"], p=[1 - share, share / 3, share / 3, share / 3])
        if how == "gone":
            continue
        width, height = box[2] - box[0], box[3] - box[1]
        shift = np.array([width, height, width, height]) / 6 * draw.choice([-1, 1]) if how == "moved" else 0
        others = [one for one in range(len(sample.vocabulary.names)) if one != name]
        moved = np.clip(box + shift, 0, [*sample.size_hw[::-1]] * 2)
        boxes.append(moved.tolist())
        classes.append(int(draw.choice(others)) if how == "renamed" else name)
    return sample.evolve(instances=Instances.build(boxes, classes))


def run(key: Mapping[str, Any]) -> dict[str, Any]:
    """Both trainings of a seed, and how much was corrected between them."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = deixis.read_dataset(f"scenes:split=demo_train,count={key['pictures']},seed={100 + key['seed']}")
        truth = deixis.read_dataset(str(opened(scenes).save(folder / "truth")))
        draw = np.random.default_rng(key["seed"])
        labels = [spoilt(truth[number], key["spoiled"], draw) for number in range(len(truth))]
        data = SampleList(tuple(labels), truth.vocabulary, "spoiled")
        with build_review(folder / "review.db", data, source="spoiled") as store:
            for number in range(len(truth)):
                answer_image(store, number + 1, truth[number])
        counts = corrections(folder / "review.db")
        before = trained(f"{folder / 'review.db'}#before", key, folder / "before")
        after = trained(str(folder / "review.db"), key, folder / "after", compare_with=str(folder / "before"))
    found = {"AP_spoiled": before, "AP_corrected": after, **{one: counts[one] for one in ("accepted", *CHANGED)}}
    return {**key, **found, "seconds": round(time.perf_counter() - begun), "day": time.strftime("%Y-%m-%d")}


def trained(data: str, key: Mapping[str, Any], output: Path, **more: Any) -> float:
    """AP of a run on its last and only evaluated epoch, on pictures of their own."""
    result = finetune(
        DetectTrainOptions(
            data=(data,),
            val_data=fewer(NEW_SCENES, key["most"]),
            model="builtin",
            output=output,
            epochs=key["steps"],
            max_steps=key["steps"],
            evaluate_every=key["steps"],
            val_loss_images=0,
            keep=key["keep"],
            baseline=False,
            report=False,
            log_with=("none",),
            num_workers=0,
            gpus=0,
            seed=key["seed"],
            **more,
        )
    )
    assert result.after is not None
    return result.after.AP


def table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each seed, and the mean."""
    lines = [
        "| seed | pictures | boxes right | changed | AP on spoiled labels | on corrected ones | gain |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in runs:
        changed = sum(one[kind] for kind in CHANGED)
        before, after = one["AP_spoiled"], one["AP_corrected"]
        lines.append(
            f"| {one['seed']} | {one['pictures']} | {one['accepted']} | {changed} | {before:.3f} | {after:.3f} | "
            f"{after - before:+.3f} |"
        )
    gains = [one["AP_corrected"] - one["AP_spoiled"] for one in runs]
    return [*lines, "", f"Mean gain {statistics.mean(gains):+.3f}, from {min(gains):+.3f} to {max(gains):+.3f}."]


def write(runs: Sequence[Mapping[str, Any]]) -> Path:
    """The table as a file of `results/`."""
    first, minutes = runs[0], sum(one["seconds"] for one in runs) / 60
    path = RESULTS / f"corrections_{hardware()}_{time.strftime('%Y-%m-%d')}.md"
    head = [
        "# What corrections buy",
        "",
        f"Of the boxes of generated pictures {100 * first['spoiled']:.0f} % were spoiled, then corrected by a "
        f"simulated annotator; the built-in detector, --keep {first['keep']}, {first['steps']} steps of 4 pictures; "
        f"AP on {fewer(NEW_SCENES, first.get('most'))}. "
        f"Changed: renamed, moved, drawn and rejected. {minutes:.0f} minutes in all, beside "
        "other work.",
        "",
    ]
    path.write_text("\n".join([*head, *table(runs)]) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="file with one line per finished seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--spoiled", type=float, default=0.5, help="share of the boxes")
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps of each training")
    parser.add_argument("--keep", choices=("none", "prompt"), default="prompt")
    parser.add_argument("--most", type=int, default=None, help="pictures measured; all if not given")
    parser.add_argument("--write", action="store_true", help="write what is finished to results/, train nothing")
    given = parser.parse_args()
    runs = [json.loads(line) for line in given.runs.read_text().splitlines()] if given.runs.exists() else []
    for seed in () if given.write else given.seeds:
        key = dict(zip(KEY, (seed, given.pictures, given.spoiled, given.steps, given.keep, given.most), strict=True))
        if any(all(one.get(name) == key[name] for name in KEY) for one in runs):
            continue
        runs.append(run(key))
        with given.runs.open("a", encoding="utf-8") as file:
            file.write(json.dumps(runs[-1]) + "\n")
        print(json.dumps(runs[-1]), flush=True)
    print("\n".join(table(runs)))
    if given.write:
        print(f"wrote {write(runs)}")


if __name__ == "__main__":
    main()
