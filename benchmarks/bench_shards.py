"""Memory and time of shards: an index of a hundred thousand to ten million generated records, and real shards.

python benchmarks/bench_shards.py --write
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import table, write_result

from deixis.data.batching.epochs import epoch_batches
from deixis.data.formats import read_dataset
from deixis.data.formats.shards import shard_index, shard_sizes
from deixis.data.formats.shards.index import IMAGE, MANIFEST, OBJECT, Manifest, ShardFile, ShardRatios

WIDTH, HEIGHT, BOXES, CLASSES = 640, 480, 4, 80
IMAGES_PER_SHARD = 2_500
READS = 5_000
COUNTS = (100_000, 1_000_000, 10_000_000)
BATCH = 16


def main() -> None:
    """Write an index of each length to a temporary folder and read it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--most", type=int, default=max(COUNTS), help="leave out indices of more images")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child)))
        return
    rows = []
    for count in sorted({min(count, arguments.most) for count in COUNTS}):
        with tempfile.TemporaryDirectory() as folder:
            index_mb = write_records(Path(folder), count) / 2**20
            command = [sys.executable, __file__, "--child", folder]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        rows.append([f"{count:,}", f"{index_mb:.0f}", *(f"{value:.2f}" for value in found.values())])
        print(*rows[-1], sep="  ", flush=True)
    heads = ["images", "index, MB", "opened in, ms", "own memory then, MB", "after an epoch's order, MB"]
    body = table([*heads, f"after {READS:,} records, MB", "µs a batch of keys", "µs a record"], rows)
    body += (
        f"\n\nOwn memory is what the process has beyond files mapped from disk (RssAnon), above that before opening; "
        f"pages of the index that were read can be dropped at any time. {BOXES} boxes an image, {IMAGES_PER_SHARD:,} "
        f"images a shard. The order is that of every hundredth batch of {BATCH} of an epoch, by aspect ratio; records "
        "are read in it, without pixels."
    )
    print(body)
    if arguments.write:
        write_result("shards", "An index of up to ten million records, in flat memory", body)


def measure(folder: Path) -> dict[str, float]:
    """Memory before, after opening, after the order of an epoch, and after reading records in it."""
    _ = np.random.default_rng(0).permutation(10)
    before = own_mb()
    started = time.perf_counter()
    dataset = read_dataset(folder)
    opened = time.perf_counter()
    opened_mb = own_mb() - before
    index = shard_index(dataset)
    assert index is not None
    batches = epoch_batches(
        len(dataset), BATCH, 1, 0, shard_sizes=shard_sizes(dataset), aspect_ratios=ShardRatios(index)
    )
    ordered = time.perf_counter()
    asked = range(0, len(batches), 100)
    keys = [batches[number] for number in asked][-READS // BATCH :]
    order_seconds = (time.perf_counter() - ordered) / len(asked)
    order_mb = own_mb() - before
    read = time.perf_counter()
    records = 0
    for batch in keys:
        for _, position in batch:
            _ = index[position]
            records += 1
    return {
        "opened_ms": (opened - started) * 1e3,
        "opened_mb": opened_mb,
        "order_mb": order_mb,
        "read_mb": own_mb() - before,
        "batch_us": order_seconds * 1e6,
        "record_us": (time.perf_counter() - read) / records * 1e6,
    }


def own_mb() -> float:
    """Memory of this process that is no file's, in MiB; Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 2**10


def write_records(folder: Path, count: int) -> int:
    """A folder of shards without pictures, its index in chunks; the index's size in bytes."""
    (folder / "data").mkdir()
    (folder / "index").mkdir()
    generator = np.random.default_rng(0)
    detail = b'{"name": "a.jpg"}'
    with (
        (folder / "index/images.bin").open("wb") as images,
        (folder / "index/objects.bin").open("wb") as objects,
        (folder / "index/details.bin").open("wb") as details,
    ):
        for start in range(0, count + 1, 10_000):
            numbers = np.arange(start, min(start + 10_000, count + 1))
            rows = np.zeros(len(numbers), IMAGE)
            rows["shard"], rows["image_id"] = numbers // IMAGES_PER_SHARD, numbers
            rows["height"], rows["width"] = generator.integers(HEIGHT, 2 * HEIGHT, (2, len(numbers)))
            rows["object"], rows["detail"] = numbers * BOXES, numbers * len(detail)
            images.write(rows.tobytes())
            many = len(numbers[numbers < count]) * BOXES
            drawn = np.zeros(many, OBJECT)
            drawn["box_xyxy_px"] = generator.uniform(0, 200, (many, 4)).round(2) + np.array([0, 0, 200, 200])
            drawn["class_id"] = generator.integers(0, CLASSES, many)
            objects.write(drawn.tobytes())
            details.write(detail * (many // BOXES))
    shards = []
    for number in range(-(-count // IMAGES_PER_SHARD)):
        file = f"data/train-{number:05d}.tar"
        (folder / file).touch()
        shards.append(ShardFile(file, 0, "", min(IMAGES_PER_SHARD, count - number * IMAGES_PER_SHARD)))
    index = tuple(ShardFile.of(folder, f"index/{name}.bin") for name in ("images", "objects", "details"))
    names = tuple(f"class {number}" for number in range(CLASSES))
    manifest = Manifest("webdataset", names, tuple(range(1, CLASSES + 1)), tuple(shards), index)
    (folder / MANIFEST).write_text(manifest.text())
    return sum(one.bytes for one in index)


if __name__ == "__main__":
    main()
