"""Memory and time of annotations of ten thousand to a million images: ODVG lines, streamed, and COCO, read whole.

python benchmarks/bench_streaming.py --write
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import table, write_result
from PIL import Image

from deixis.data.formats import read_dataset

WIDTH, HEIGHT = 640, 480
BOXES, CLASSES = 4, 80
READS = 5000
LINES = (10_000, 100_000, 1_000_000)
COCO = (10_000, 100_000)


def main() -> None:
    """Write files of growing length to a temporary folder and read each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--most", type=int, default=max(LINES), help="leave out files of more images")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (WIDTH, HEIGHT)).save(Path(folder) / "a.jpg")
        for form, write, counts in (("ODVG lines", write_lines, LINES), ("COCO", write_coco, COCO)):
            for count in sorted({min(count, arguments.most) for count in counts}):
                file = Path(folder) / ("train.jsonl" if write is write_lines else "train.json")
                write(file, count)
                size_mb = file.stat().st_size / 2**20
                found = json.loads(
                    subprocess.run(
                        [sys.executable, __file__, "--child", str(file)], check=True, capture_output=True
                    ).stdout
                )
                grown = found["after_reads_mb"] - found["before_mb"]
                rows.append(
                    [
                        form,
                        f"{count:,}",
                        f"{size_mb:.0f}",
                        f"{found['seconds']:.1f}",
                        f"{found['opened_mb'] - found['before_mb']:.1f}",
                        f"{grown:.1f}",
                        f"{grown * 2**20 / count:.0f}",
                        f"{found['read_us']:.0f}",
                    ]
                )
                print(*rows[-1], sep="  ", flush=True)
                file.unlink()
    heads = ["format", "images", "file, MB", "opened in, CPU s", "memory then, MB", f"after {READS:,} reads, MB"]
    body = table([*heads, "bytes an image", "µs a read"], rows)
    body += (
        f"\n\nMemory is the resident set above that of a process which has read a file of one image. {BOXES} boxes an "
        "image; every second ODVG line is a sentence with phrases. Opening checks every line. Reads are at random and "
        "give annotations, not pixels."
    )
    print(body)
    if arguments.write:
        write_result("streaming", "Annotations of up to a million images, streamed and read whole", body)


def measure(file: Path) -> dict[str, float]:
    """Memory before, after opening, and after random reads, with the time of each."""
    one = file.with_name(f"one{file.suffix}")
    (write_lines if file.suffix == ".jsonl" else write_coco)(one, 2)
    _ = read_dataset(one)[1]
    one.unlink()
    before = resident_mb()
    started = time.process_time()
    dataset = read_dataset(file)
    opened = time.process_time()
    opened_mb = resident_mb()
    for index in np.random.default_rng(0).integers(0, len(dataset), READS):
        _ = dataset[int(index)]
    read_us = (time.process_time() - opened) / READS * 1e6
    return {
        "before_mb": before,
        "seconds": opened - started,
        "opened_mb": opened_mb,
        "after_reads_mb": resident_mb(),
        "read_us": read_us,
    }


def resident_mb() -> float:
    """The resident set of this process now (not its peak), in MiB; Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def boxes() -> list[list[list[float]]]:
    """A thousand times random boxes of one image."""
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 300, (1000, BOXES, 2))
    corners = np.concatenate([low, low + generator.uniform(10, 150, low.shape)], 2).round(2)
    return [four.tolist() for four in corners]


def write_lines(file: Path, count: int) -> None:
    """Detection lines and sentences by turns."""
    drawn = boxes()
    with file.open("w", encoding="utf-8") as lines:
        for number in range(count):
            a, b, c, d = drawn[number % len(drawn)]
            lines.write(f'{{"filename": "a.jpg", "height": {HEIGHT}, "width": {WIDTH}, ')
            if number % 2:
                caption = f"two dogs beside car {number} and a red bicycle in the street"
                lines.write(
                    f'"grounding": {{"caption": "{caption}", "regions": [{{"bbox": {[a, b]}, "phrase": "two dogs"}}, '
                    f'{{"bbox": {c}, "phrase": "car {number}"}}, {{"bbox": {d}, "phrase": "a red bicycle"}}]}}}}\n'
                )
                continue
            labelled = ((box, (number + place) % CLASSES) for place, box in enumerate((a, b, c, d)))
            objects = (f'{{"bbox": {box}, "label": {c}, "category": "class {c}"}}' for box, c in labelled)
            lines.write(f'"detection": {{"instances": [{", ".join(objects)}]}}}}\n')


def write_coco(file: Path, count: int) -> None:
    """The same boxes as one COCO object."""
    images = [{"id": i, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH} for i in range(count)]
    annotations: list[dict[str, Any]] = []
    drawn = boxes()
    for number in range(count):
        for x1, y1, x2, y2 in drawn[number % len(drawn)]:
            one = {"id": len(annotations), "image_id": number, "category_id": len(annotations) % CLASSES}
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({**one, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": c, "name": f"class {c}"} for c in range(CLASSES)]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


if __name__ == "__main__":
    main()
