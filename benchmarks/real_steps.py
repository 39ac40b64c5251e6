"""The steps of `real_loop.py`: each runs one command, keeps its shortened output, and tells its measures as a row."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask
from real_examples import mean, relative, share, short_coco, short_tracks, write_example

from deixis.data.refer_formats import read_refer
from deixis.data.sets.mask_regions import mask_key
from deixis.evaluation.caption_scores import words_of_caption
from deixis.options.annotate import AnnotateOptions
from deixis.options.refer_caption import ReferCaptionOptions
from deixis.options.refer_cycle import ReferCycleOptions
from deixis.options.refer_track import ReferTrackOptions
from deixis.recipes.annotate import annotate
from deixis.recipes.refer.caption import caption_masks
from deixis.recipes.refer.cycle import cycle_masks
from deixis.recipes.refer.track import track_video

THRESHOLDS = 0.0, 0.3, 0.5, 0.7
LEAST_PREDICTED_IOU = 0.3  # without names; small models expect little of their masks
LOOP_HEAD = [
    *(
        "photographs",
        "classes described",
        "CIDEr-D",
        "METEOR",
        "exact %",
        "masks",
        "the commonest caption",
        "cycle IoU",
        "direct IoU",
    ),
    *(f"names the class, of cycle IoU ≥ {least:g}" for least in THRESHOLDS),
]
ANNOTATE_HEAD = [
    *("names", "pictures", "objects", "without a fitting mask", "captions kept"),
    *("cycle IoU", "best IoU with a true mask"),
]
TRACK_HEAD = ["video", "phrase", "seen in frames", "share of the frame where seen", "processor s for all phrases"]
Truth = dict[str, list[tuple[str, Any]]]
"""Of each photograph its masks, each with its class."""


@dataclass(frozen=True)
class Run:
    """What all steps share: the models, the folder of the data and that of outputs."""

    model: str
    called: str
    detector: str
    min_score: float
    threshold: float
    root: Path
    output: Path
    examples: Path | None

    def keep(self, name: str, content: Any) -> None:
        """An output's short form, where examples are kept."""
        if self.examples is not None:
            write_example(self.examples / f"{name}.json", content, (self.root, self.output))


def truth_of(masks: str, root: Path) -> Truth:
    """Photographs without a mask have none."""
    samples = read_refer(masks, templates=("{name}",))
    return {
        relative(str(sample.image), Path(), root): [
            (e.texts[0], mask) for e in sample.expressions for mask in e.masks_rle
        ]
        for sample in (samples[index] for index in range(len(samples)))
    }


def looped(part: str, masks: str, truth: Truth, run: Run) -> tuple[list[str], list[dict[str, Any]]]:
    """A row of measures, and every mask with its class, its caption and its cycle IoU."""
    output = run.output / part
    caption_masks(ReferCaptionOptions(masks=masks, model=run.model, output=output, measure=True, max_tiles=1))
    said = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    cycle = ReferCycleOptions(
        masks=masks, model=run.model, output=output / "cycle", threshold=run.threshold, max_tiles=1
    )
    found = cycle_masks(cycle)
    rows = []
    for line in (cycle.output / "cycle.jsonl").read_text(encoding="utf-8").splitlines()[1:]:
        entry = json.loads(line)
        image = relative(entry["image"], cycle.output, run.root)
        classes = {mask_key(mask): name for name, mask in truth[image]}
        for e in entry["expressions"]:
            true, text = classes[mask_key(e["masks"][0])], e.get("text", [""])[0]
            named = f" {' '.join(words_of_caption(true))} " in f" {' '.join(words_of_caption(text))} "
            values = {name: e[name] for name in ("score", "cycle_iou", "direct_iou") if name in e}
            rows.append({"image": image, "class": true, "caption": text, "names_it": named, **values})
    ious = [f"{found[name]:.3f}" if name in found else "-" for name in ("cycle_IoU", "direct_IoU")]
    kept = [[row for row in rows if row["caption"] and row["cycle_iou"] >= least] for least in THRESHOLDS]
    shares = [f"{share(row['names_it'] for row in these)} % of {len(these)}" if these else "none" for these in kept]
    ((text, count),) = Counter(row["caption"] for row in rows).most_common(1)
    commonest = f"“{text}”, {100 * count / len(rows):.0f} %"
    meteor = f"{said['METEOR']:.2f}" if "METEOR" in said else "-"  # it needs Java
    measures = [f"{said['CIDEr']:.2f}", meteor, f"{100 * said['exact']:.0f}"]
    return [part, str(said["captions"]), *measures, str(len(rows)), commonest, *ious, *shares], rows


def annotated(images: Sequence[Path], names: Sequence[str], truth: Truth, run: Run) -> list[str]:
    """A row of measures. The output is kept, shortened."""
    what = "annotated_names" if names else "annotated_without_names"
    options = AnnotateOptions(
        images=tuple(images),
        names=tuple(names),
        detector=run.detector,
        segmenter=run.model,
        output=run.output / what,
        threshold=run.min_score,
        min_predicted_iou=LEAST_PREDICTED_IOU,
        cycle_threshold=run.threshold,
        max_objects=10,
        max_tiles=1,
    )
    counts = annotate(options)
    coco = json.loads((options.output / "coco.json").read_text(encoding="utf-8"))
    for image in coco["images"]:
        image["file_name"] = relative(image["file_name"], options.output, run.root)
    run.keep(what, short_coco(coco, run.called, Path(run.detector).name))
    files = {image["id"]: image["file_name"] for image in coco["images"]}
    true = {image: [mask for _, mask in masks] for image, masks in truth.items()}
    best = [
        _best_iou(a["segmentation"], true[files[a["image_id"]]])
        for a in coco["annotations"]
        if true.get(files[a["image_id"]])
    ]
    ious = [mean([a["cycle_iou"] for a in coco["annotations"]]), mean(best)]
    return [
        ", ".join(names) or "none",
        *(str(counts[n]) for n in ("pictures", "objects", "left_out", "captions")),
        *ious,
    ]


def tracked(video: Path, phrases: tuple[str, ...], run: Run) -> list[list[str]]:
    """A row a phrase. The tracks are kept, shortened."""
    started, output = time.process_time(), run.output / video.stem
    track_video(ReferTrackOptions(video=video, phrases=phrases, model=run.model, output=output, max_tiles=1))
    seconds = f"{time.process_time() - started:.0f}"
    tracks = json.loads((output / "masks.json").read_text(encoding="utf-8"))
    run.keep(f"tracks_{video.stem}", short_tracks(tracks))
    rows = []
    for phrase in tracks["phrases"]:
        areas = [int(coco_mask.area(mask)) for mask in phrase["masks"] if mask]
        size = mean([area / (tracks["size"][0] * tracks["size"][1]) for area in areas])
        rows.append([video.name, phrase["text"], f"{len(areas)} of {tracks['frames']}", size, seconds])
    return rows


def _best_iou(mask: Any, masks: Sequence[Any]) -> float:
    return float(coco_mask.iou([mask], list(masks), [0] * len(masks)).max())
