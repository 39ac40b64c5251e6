"""Small objects in large pictures: AP and recall of whole pictures, and of windows joined by three rules.

    python benchmarks/bench_slices.py [--pictures 1] [--size 2160 3840] [--write]
    python benchmarks/bench_slices.py --data trees/ --model runs/trees --slice 128 --score 0.1 --write

Each picture is 3840x2160 pixels, or of another --size, put together from generated scenes, so every object is known;
or those of --data. The detector sees it whole, then in windows too; the same windows are joined by plain NMS for each
class, by NMS with the share of the smaller box (IoS), and by deixis's rule (`inference/detect/slices.py`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import write_result

from deixis.data.formats import read_dataset
from deixis.data.pixels.images import load
from deixis.evaluation.coco_map import evaluate_detections
from deixis.geometry.pixel_boxes import overlaps
from deixis.inference.detect import samples
from deixis.inference.detect.detector import load_detector
from deixis.inference.detect.slices import Window, joined
from deixis.records import Instances, Sample, SampleList
from deixis.results.detections import Detections

SMALL_PX = 32


def composed(count: int, height_px: int, width_px: int) -> SampleList:
    """Large pictures, each a mosaic of scenes with all of their objects."""
    scenes = read_dataset("scenes:split=demo_val,count=400,seed=7")
    samples = []
    place = 0
    for number in range(count):
        pixels = np.full((height_px, width_px, 3), 128, np.uint8)
        boxes, class_ids = [], []
        top = 0
        while top < height_px:
            left, tallest = 0, 1
            while left < width_px:
                scene = scenes[place % len(scenes)]
                place += 1
                height, width = scene.size_hw
                if left + width > width_px or top + height > height_px:
                    break
                assert isinstance(scene.image, np.ndarray)
                pixels[top : top + height, left : left + width] = scene.image
                boxes.append(scene.instances.boxes_xyxy_px + np.array([left, top, left, top]))
                class_ids.append(scene.instances.class_ids)
                left, tallest = left + width, max(tallest, height)
            top += tallest
            if top + tallest > height_px:
                break
        instances = Instances.build(np.concatenate(boxes), np.concatenate(class_ids))
        samples.append(Sample(pixels, (height_px, width_px), instances, scenes.vocabulary, image_id=number))
    return SampleList(tuple(samples), scenes.vocabulary, "mosaics")


def plain(of_smaller: bool) -> Callable[..., Detections]:
    """Greedy suppression for each class over all windows, by IoU or by the share of the smaller box."""

    def join(
        parts: Sequence[Detections], windows: Sequence[Window], size_hw: tuple[int, int], count: int
    ) -> Detections:
        if len(parts) == 1:
            return parts[0]
        moved = [p.boxes_xyxy_px + np.array(w[:2] * 2) for p, w in zip(parts, windows, strict=True)]
        boxes, scores = np.concatenate(moved), np.concatenate([part.scores for part in parts])
        classes = np.concatenate([part.class_ids for part in parts])
        waiting, kept = np.argsort(-scores, kind="stable"), []
        while len(waiting) and len(kept) < count:
            best, waiting = waiting[0], waiting[1:]
            kept.append(best)
            share = overlaps(boxes[best], boxes[waiting])[of_smaller]
            waiting = waiting[(share < 0.5) | (classes[waiting] != classes[best])]
        order = np.array(kept, np.int64)
        return replace(
            parts[0], boxes_xyxy_px=boxes[order], scores=scores[order], class_ids=classes[order], size_hw=size_hw
        )

    return join


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(2160, 3840), help="height and width of a picture")
    parser.add_argument("--data", help="annotated pictures in place of generated ones")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score of a detection for recall")
    parser.add_argument("--slice", default="auto")
    parser.add_argument("--write", nargs="?", const="slices", help="record it in benchmarks/results under this name")
    given = parser.parse_args()
    side = given.slice if given.slice == "auto" else int(given.slice)
    data = loaded(given.data) if given.data else composed(given.pictures, *given.size)
    objects = sum(len(sample.instances) for sample in data.samples)
    shown = f"`{Path(given.data).name}`" if given.data else f"{given.size[1]}x{given.size[0]}"
    model = "built-in detector" if given.model == "builtin" else f"the model of `{Path(given.model).name}`"
    lines = [
        f"{len(data)} picture(s) of {shown}, {objects} objects, {model}, windows "
        f"`{given.slice}`, overlap 0.2, at most 2000 detections per picture.",
        "",
        f"Recall is that of detections of the right class at score {given.score:g} and IoU 0.5; small is below "
        f"{SMALL_PX} pixels, the root of the box's area.",
        "",
        "| seen | joined by | AP | AP50 | recall, small objects | recall, larger ones | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]

    def add(seen: str, name: str, found: Sequence[Detections], seconds: float) -> None:
        values = evaluate_detections(data.samples, found, data.vocabulary, max_detections=2000).as_dict()
        row = [values["AP"], values["AP50"], *recalls(data, found, given.score)]
        lines.append(f"| {seen} | {name} | {' | '.join(f'{100 * v:.1f}' for v in row)} | {seconds:.0f} |")
        print(lines[-1], flush=True)

    start = time.perf_counter()
    add("whole", "-", load_detector(given.model, "cpu").predict_dataset(data, 8, 2000), time.perf_counter() - start)
    parts = []
    samples.joined = lambda *given: parts.append(given) or joined(*given)  # windows are seen once for all rules
    start = time.perf_counter()
    found = load_detector(given.model, "cpu", slice=side).predict_dataset(data, 8, 2000)
    took = time.perf_counter() - start
    for name, rule in (("NMS (IoU)", plain(False)), ("NMS (IoS)", plain(True)), ("deixis", joined)):
        ids = [one.image_id for one in found]
        add("windows", name, [replace(rule(*g), image_id=i) for g, i in zip(parts, ids, strict=True)], took)
    if given.write:
        print(write_result(given.write, "Small objects in large pictures", "\n".join(lines)))


def recalls(data: SampleList, found: Sequence[Detections], score: float) -> list[float]:
    """Shares of the small and of the larger objects with a detection of their class of this score, IoU 0.5 or more."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for sample, one in zip(data.samples, found, strict=True):
        good = one.above(score)
        for box, class_id in zip(sample.instances.boxes_xyxy_px, sample.instances.class_ids, strict=True):
            small = np.sqrt((box[2] - box[0]) * (box[3] - box[1])) < SMALL_PX
            iou = overlaps(box, good.boxes_xyxy_px[good.class_ids == class_id])[0]
            hits[bool(small)].append(bool(len(iou) and iou.max() >= 0.5))
    return [float(np.mean(hits[small])) if hits[small] else float("nan") for small in (True, False)]


def loaded(path: str) -> SampleList:
    """The annotated pictures of a data set, with their pixels."""
    dataset = read_dataset(path)
    return SampleList(tuple(load(dataset[i]) for i in range(len(dataset))), dataset.vocabulary, path)


if __name__ == "__main__":
    main()
