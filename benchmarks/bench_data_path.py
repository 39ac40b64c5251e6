"""Photographs a second on one core, from file to model input, beside transformers' image processor.

    python benchmarks/bench_data_path.py                    # 60 photographs to 800 x 1333 at most
    python benchmarks/bench_data_path.py --size 480 640 --write

Both read the same JPEG files and their boxes, resize, scale the boxes, normalise and batch by four. transformers has no
decoder of its own: it is fed by Pillow, as its examples do. The sizes that the two resize to have to agree.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import ratios, table, time_interleaved, write_result
from PIL import Image
from transformers import GroundingDinoImageProcessorPil

from deixis.data.collate import collate
from deixis.data.images import load
from deixis.data.readers import read_dataset
from deixis.data.transforms import eval_transform
from deixis.models.builtin import builtin_detector_folder
from deixis.models.grounding_dino import load_grounding_dino
from deixis.records import Prompt, Sample

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"
BATCH = 4
PROMPT = Prompt("raccoon.", ("raccoon",), ((0, 7),), (101, 26100, 2669, 1012, 102), np.array([[0, 0.5, 0.5, 0, 0]]))


def ours(samples: list[Sample], size: tuple[int, int]) -> Callable[[], list[tuple[int, int]]]:
    """Our path, normalisation included (in training it runs on the device)."""
    normalise = load_grounding_dino(builtin_detector_folder()).normalise
    transform, generator = eval_transform(*size), np.random.default_rng(0)

    def run() -> list[tuple[int, int]]:
        found = []
        for start in range(0, len(samples), BATCH):
            ready = [transform(load(sample, size[0]), generator) for sample in samples[start : start + BATCH]]
            batch = collate(ready, [PROMPT] * len(ready))
            normalise(batch.pixels_u8, batch.pixel_mask)
            found += [target.size_hw for target in batch.targets]
        return found

    return run


def theirs(samples: list[Sample], size: tuple[int, int]) -> Callable[[], list[tuple[int, int]]]:
    """transformers' processor, fed by Pillow."""
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": size[0], "longest_edge": size[1]})

    def run() -> list[tuple[int, int]]:
        found = []
        for start in range(0, len(samples), BATCH):
            some = samples[start : start + BATCH]
            pictures = [Image.open(sample.image).convert("RGB") for sample in some]
            encoded = processor(images=pictures, annotations=[annotation(s) for s in some], return_tensors="pt")
            # Its labels are scaled to the padded batch; the picture's own size is in the mask.
            found += [(int(mask[:, 0].sum()), int(mask[0].sum())) for mask in encoded["pixel_mask"]]
        return found

    return run


def annotation(sample: Sample) -> dict[str, Any]:
    """A sample's boxes as COCO annotations."""
    objects = [
        {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "category_id": 0, "iscrowd": 0}
        for x0, y0, x1, y1 in sample.instances.boxes_xyxy_px.tolist()
    ]
    return {"image_id": sample.image_id, "annotations": objects}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1333], metavar=("SHORTEST", "LONGEST"))
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(os.environ.get("DEIXIS_SHARED_DATA", DEFAULT_DATA))
    dataset = read_dataset(root / "raccoon_voc")
    samples = [dataset[index] for index in range(arguments.images)]
    size = (arguments.size[0], arguments.size[1])
    runs = {"transformers": theirs(samples, size), "deixis": ours(samples, size)}
    for their_size, our_size in zip(runs["transformers"](), runs["deixis"](), strict=True):
        if their_size != our_size:
            sys.exit(f"the two do not agree: {their_size} and {our_size}")
    timings = time_interleaved(runs, arguments.rounds)
    rows = [[name, f"{len(samples) / timing.median:.1f}", timing] for name, timing in timings.items()]
    ratio = ratios(timings["transformers"], timings["deixis"])
    body = table(["", "photographs a second", "ms for all"], rows) + f"\n\ndeixis is {ratio} times as fast."
    print(body)
    if arguments.write:
        write_result(f"data_path_{size[0]}", f"{len(samples)} photographs to {size[0]} x {size[1]}, one core", body)


if __name__ == "__main__":
    main()
