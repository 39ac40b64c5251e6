"""How well the built-in segmenter listens: cIoU and gIoU on scenes it has not seen, beside answers deaf to the phrase.

    python benchmarks/scenes_segmenter.py --write
    python benchmarks/scenes_segmenter.py --model runs/segmenter/teachers/sa2va --images 50

Deaf answers, one mask for all phrases of a picture:
- all things: every thing of the picture, drawn exactly;
- best mask: of the exact masks of each thing and of all things, the one that suits the picture's phrases best, which
  no model can know: more than any model deaf to the phrase can reach with masks of things;
- another phrase: the segmenter's own answer to another phrase of the same picture.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import table, write_random_segmenter, write_result
from pycocotools import mask as coco_mask

from deixis.data.scenes.refer_scenes import ReferScenes
from deixis.evaluation.refer_iou import ReferMetrics, evaluate_segmentations
from deixis.inference.refer.segmenter import load_segmenter
from deixis.records import Rle
from deixis.refer_records import ReferSample, Segmentation

SEED = 77  # no training or validation scene has it
Answers = Sequence[Segmentation]


def rle(mask: np.ndarray) -> Rle:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def wanted_masks(sample: ReferSample) -> list[np.ndarray]:
    """What each sentence means, in the order of the answers."""
    blank = np.zeros(sample.size_hw, bool)
    return [
        coco_mask.decode(coco_mask.merge(list(e.masks_rle))).astype(bool) if e.masks_rle else blank
        for e in sample.expressions
        for _ in e.texts
    ]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def all_things(scene: np.ndarray, sample: ReferSample, answers: Answers) -> list[Segmentation]:
    return [replace(answer, mask_rle=rle(scene.any(0))) for answer in answers]


def best_mask(scene: np.ndarray, sample: ReferSample, answers: Answers) -> list[Segmentation]:
    wanted = wanted_masks(sample)
    best = max([*scene, scene.any(0)], key=lambda mask: sum(iou(mask, one) for one in wanted))
    return [replace(answer, mask_rle=rle(best)) for answer in answers]


def another_phrase(scene: np.ndarray, sample: ReferSample, answers: Answers) -> list[Segmentation]:
    """The answers of the picture's expressions moved on by one; all sentences of an expression count as one phrase."""
    heads = np.cumsum([0] + [len(e.texts) for e in sample.expressions])
    moved = []
    for place, expression in enumerate(sample.expressions):
        other = answers[heads[(place + 1) % len(sample.expressions)]]
        moved += [replace(other, text=text) for text in expression.texts]
    return moved


DEAF: dict[str, Callable[[np.ndarray, ReferSample, Answers], list[Segmentation]]] = {
    "deaf: all things, exact": all_things,
    "deaf: best exact mask": best_mask,
    "deaf: its answer to another phrase": another_phrase,
}


def measure(model: str, split: str, images: int, batch_size: int = 16) -> dict[str, ReferMetrics]:
    """Metrics of a segmenter, and of the deaf answers."""
    dataset = ReferScenes(split, images, SEED)
    found = list(load_segmenter(model, "cpu", 1).run(dataset, batch_size))
    samples = [sample for sample, _ in found]
    measured = {"segmenter": evaluate_segmentations(samples, [answers for _, answers in found])}
    scenes = [dataset.scene(index)[0].masks for index in range(images)]
    for name, deaf in DEAF.items():
        answers = [deaf(scene, *each) for scene, each in zip(scenes, found, strict=True)]
        measured[name] = evaluate_segmentations(samples, answers)
    return measured


def row(name: str, metrics: ReferMetrics) -> list[str]:
    unseen = metrics.tags.get("unseen pair")
    values = [metrics.ciou, metrics.giou, metrics.absent_accuracy, metrics.present_accuracy]
    return [name, *(f"{value:.3f}" for value in values), "-" if unseen is None else f"{unseen.ciou:.3f}"]


def section(title: str, measured: dict[str, ReferMetrics]) -> str:
    """One split: a line an answer, then the segmenter by kind of phrase."""
    first = next(iter(measured.values()))
    head = table(
        ["", "cIoU", "gIoU", "left empty, rightly", "not left empty, rightly", "cIoU, unseen pairs"],
        [row(name, metrics) for name, metrics in measured.items()],
    )
    kinds = table(
        ["phrases", "how many", "cIoU", "gIoU"],
        [[tag, g.phrases, f"{g.ciou:.3f}", f"{g.giou:.3f}"] for tag, g in sorted(first.tags.items())],
    )
    return (
        f"## {title}: {first.images} pictures, {first.phrases} sentences\n\n{head}\n\nThe segmenter by kind:\n\n{kinds}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--images", type=int, default=150, help="of each split")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results")
    arguments = parser.parse_args()
    sections = []
    for split in ("refer_seen", "refer_unseen"):
        measured = measure(arguments.model, split, arguments.images)
        with tempfile.TemporaryDirectory() as folder:
            start = write_random_segmenter(Path(folder) / "new")
            before = measure(str(start), split, arguments.images)["segmenter"]
        sections.append(section(split, {**measured, "before training": before}))
        print(sections[-1], flush=True)
    if arguments.write:
        title = f"The segmenter `{arguments.model}` on generated scenes of seed {SEED}"
        print(write_result("segmenter_scenes", title, "\n\n".join(sections)))


if __name__ == "__main__":
    main()
