"""Photographs a second on one core, from file to model input, beside transformers' image processor.

    python benchmarks/bench_data_path.py                    # 60 photographs to 800 x 1333 at most
    python benchmarks/bench_data_path.py --enlarge 4 --images 12 --write   # as a camera gives them

Both read the same JPEG files and their boxes, resize, scale the boxes, normalise and batch by four. transformers has no
decoder of its own: it is fed by Pillow, as its examples do. The sizes that the two resize to have to agree; how far the
pixels differ (another resampling, and JPEGs decoded at a fraction of their size where that suffices) is printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import ratios, table, time_interleaved, write_result
from PIL import Image
from torch import Tensor
from transformers import GroundingDinoImageProcessorPil

from deixis.batch_records import Prompt
from deixis.data.detect.collate import collate
from deixis.data.detect.transforms import eval_transform, resize_to
from deixis.data.formats import read_dataset
from deixis.data.pixels.images import load
from deixis.models.builtin import builtin_folder
from deixis.models.grounding_dino import load_grounding_dino
from deixis.models.grounding_dino.bundle import IMAGENET_STD
from deixis.records import Sample

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"
BATCH = 4
PROMPT = Prompt("raccoon.", ("raccoon",), ((0, 7),), (101, 26100, 2669, 1012, 102), np.array([[0, 0.5, 0.5, 0, 0]]))


def ours(samples: list[Sample], size: tuple[int, int], draft: bool = True) -> Callable[[], list[Tensor]]:
    """Our path as in training, normalisation included (which runs on the device there)."""
    normalise = load_grounding_dino(builtin_folder("detector")).normalise
    transform, generator = eval_transform(*size), np.random.default_rng(0)
    decode_short_px = 2 * size[0] if draft else None

    def run() -> list[Tensor]:
        found = []
        for start in range(0, len(samples), BATCH):
            ready = [transform(load(sample, decode_short_px), generator) for sample in samples[start : start + BATCH]]
            batch = collate(ready, [PROMPT] * len(ready))
            found.append(normalise(batch.pixels_u8, batch.pixel_mask))
        return found

    return run


def theirs(samples: list[Sample], size: tuple[int, int]) -> Callable[[], list[Tensor]]:
    """transformers' processor, fed by Pillow."""
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": size[0], "longest_edge": size[1]})

    def run() -> list[Tensor]:
        found = []
        for start in range(0, len(samples), BATCH):
            some = samples[start : start + BATCH]
            pictures = [Image.open(sample.image).convert("RGB") for sample in some]
            encoded = processor(images=pictures, annotations=[annotation(s) for s in some], return_tensors="pt")
            found.append(encoded["pixel_values"])
        return found

    return run


def levels_apart(some: list[Tensor], others: list[Tensor]) -> str:
    """Mean difference of two paths' pixels, of 255 levels; ends the benchmark where sizes differ."""
    std = torch.tensor(IMAGENET_STD)[:, None, None] * 255
    total, count = 0.0, 0
    for one, other in zip(some, others, strict=True):
        if one.shape != other.shape:
            sys.exit(f"the two do not agree: batches of {tuple(one.shape)} and {tuple(other.shape)}")
        total += float(((one - other) * std).abs().sum())
        count += int((one != 0).sum())
    return f"{total / count:.2f}"


def enlarged(sample: Sample, times: int, folder: Path) -> Sample:
    """The photograph as a camera of several megapixels would have stored it."""
    size_hw = (sample.size_hw[0] * times, sample.size_hw[1] * times)
    large = resize_to(load(sample), size_hw)
    path = folder / f"{sample.image_id}.jpg"
    Image.fromarray(np.asarray(large.image)).save(path, quality=90)
    return large.evolve(image=path)


def annotation(sample: Sample) -> dict[str, Any]:
    """A sample's boxes as COCO annotations."""
    objects = [
        {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "category_id": 0, "iscrowd": 0}
        for x0, y0, x1, y1 in sample.instances.boxes_xyxy_px.tolist()
    ]
    return {"image_id": sample.image_id, "annotations": objects}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1333], metavar=("SHORTEST", "LONGEST"))
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--enlarge", type=int, default=1, help="store the photographs so many times as large first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    root = Path(os.environ.get("DEIXIS_SHARED_DATA", DEFAULT_DATA))
    dataset = read_dataset(root / "raccoon_voc")
    samples = [dataset[index] for index in range(arguments.images)]
    with tempfile.TemporaryDirectory() as folder:
        if arguments.enlarge > 1:
            samples = [enlarged(sample, arguments.enlarge, Path(folder)) for sample in samples]
        measure(samples, arguments)


def measure(samples: list[Sample], arguments: argparse.Namespace) -> None:
    """Check, time, print, record."""
    size = (arguments.size[0], arguments.size[1])
    runs = {"transformers": theirs(samples, size), "deixis": ours(samples, size)}
    wanted = runs["transformers"]()
    apart = levels_apart(runs["deixis"](), wanted), levels_apart(ours(samples, size, draft=False)(), wanted)
    del wanted
    timings = time_interleaved(runs, arguments.rounds)
    rows = [[name, f"{len(samples) / timing.median:.1f}", timing] for name, timing in timings.items()]
    ratio = ratios(timings["transformers"], timings["deixis"])
    body = table(["", "photographs a second", "ms for all"], rows) + f"\n\ndeixis is {ratio} times as fast."
    body += (
        f"\n\nPixels differ from transformers' by {apart[0]} of 255 levels on average; {apart[1]} if decoded in full."
    )
    print(body)
    if arguments.write:
        height, width = np.median([sample.size_hw for sample in samples], axis=0).astype(int)
        title = f"{len(samples)} photographs, {width} x {height} by the median, to {size[0]} x {size[1]}, one core"
        large = f"_enlarged_{arguments.enlarge}" if arguments.enlarge > 1 else ""
        write_result(f"data_path_{size[0]}{large}", title, body)


if __name__ == "__main__":
    main()
