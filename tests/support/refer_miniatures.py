"""Faithful miniatures of the public data sets of phrases and masks: the same files, keys and quirks, few images."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.refer.loading import decoded
from deixis.refer_records import ReferDataset, ReferSample

SIZE_HW = (30, 40)
LEFT, RIGHT = [2, 2, 12, 2, 12, 22, 2, 22], [22, 4, 36, 4, 36, 24, 22, 24]
"""Polygons: boxes of 10 x 20 and 14 x 20 pixels."""
OVERLAPPING = [[2, 2, 12, 2, 12, 22, 2, 22], [8, 2, 18, 2, 18, 22, 8, 22]]
"""Two polygons of one object that share 4 x 20 pixels; their union is 16 x 20."""


def pixels(mask: Any) -> int:
    return int(coco_mask.area(mask))


def everything(dataset: ReferDataset) -> list[ReferSample]:
    """All samples with their pictures: reading a data set to its end."""
    assert isinstance(dataset, ReferDataset)
    samples = [decoded(dataset[i]) for i in range(len(dataset))]
    assert all(isinstance(sample.image, np.ndarray) for sample in samples)
    return samples


def picture(path: Path, size_hw: tuple[int, int] = SIZE_HW, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size_hw, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def rle(polygons: list[list[float]], size_hw: tuple[int, int] = SIZE_HW) -> dict[str, Any]:
    """As JSON holds it: counts are text."""
    mask = coco_mask.merge(coco_mask.frPyObjects(polygons, *size_hw))
    return {"size": list(size_hw), "counts": mask["counts"].decode()}


def refcoco_reference(ref_id: int, ann_id: int, image_id: int, split: str, *texts: str) -> dict[str, Any]:
    name = f"COCO_train2014_{image_id:012d}"
    sentences = [
        {"sent_id": ref_id * 10 + i, "raw": text.capitalize(), "sent": text, "tokens": text.split()}
        for i, text in enumerate(texts)
    ]
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "image_id": image_id,
        "category_id": 1,
        "split": split,
        "sent_ids": [item["sent_id"] for item in sentences],
        "file_name": f"{name}_{ann_id}.jpg",  # the real files say so; it names no file
        "sentences": sentences,
    }


def refcoco(root: Path, refs: list[dict[str, Any]] | None = None, partition: str = "unc", protocol: int = 0) -> Path:
    """`root/refcoco` with its files, and COCO's pictures in `root/train2014`. Protocol 0 is the real files'."""
    folder = root / "refcoco"
    folder.mkdir(parents=True, exist_ok=True)
    if refs is None:
        refs = [
            refcoco_reference(0, 1, 9, "train", "left man", "man in red", "the man on the left side"),
            refcoco_reference(1, 2, 9, "train", "right man"),
            refcoco_reference(2, 1, 9, "train", "him again"),  # the object of reference 0
            refcoco_reference(3, 4, 25, "val", "the whole thing"),
            refcoco_reference(4, 5, 30, "testA", "crowd"),
        ]
    (folder / f"refs({partition}).p").write_bytes(pickle.dumps(refs, protocol=protocol))
    annotations = [
        annotation(1, 9, [LEFT]),
        annotation(2, 9, [RIGHT]),
        annotation(3, 25, [LEFT]),
        annotation(4, 25, OVERLAPPING),
        annotation(5, 30, {"size": list(SIZE_HW), "counts": [600, 300, 300]}, iscrowd=1),
    ]
    images = [
        {"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "height": SIZE_HW[0], "width": SIZE_HW[1]}
        for i in (9, 25, 30)
    ]
    for item in images:
        picture(root / "train2014" / str(item["file_name"]), seed=int(str(item["id"])))
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    content["categories"] = [{"supercategory": "person", "id": 1, "name": "person"}]
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def annotation(ann_id: int, image_id: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    head = {"id": ann_id, "image_id": image_id, "category_id": 1, "bbox": [2, 2, 10, 20], "area": 200, "iscrowd": 0}
    return {**head, "segmentation": segmentation, **more}


def sa1b(folder: Path, numbers: tuple[int, ...] = (1, 2, 10), masks: int = 2) -> Path:
    for number in numbers:
        picture(folder / f"sa_{number}.jpg", seed=number)
        rows = [
            {
                "id": 500_000_000 + number * 10 + i,
                "bbox": [2.0, 2.0, 9.0, 19.0],
                "area": 200,
                "segmentation": rle([LEFT if i % 2 == 0 else RIGHT]),
                "predicted_iou": 0.98,
                "stability_score": 0.97,
                "crop_box": [0, 0, 40, 30],
                "point_coords": [[5.0, 5.0]],
            }
            for i in range(masks)
        ]
        image = {"image_id": number, "width": 40, "height": 30, "file_name": f"sa_{number}.jpg"}
        (folder / f"sa_{number}.json").write_text(json.dumps({"image": image, "annotations": rows}))
    return folder


def open_images(folder: Path) -> Path:
    """Two images; "Man" twice in the first; the masks are half the size of the pictures, as they may be."""
    columns = ["MaskPath", "ImageID", "LabelName", "BoxID", "BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax"]
    rows = []
    for image_id, label, box_id in (
        ("0a1b", "/m/04yx4", "aa"),
        ("0a1b", "/m/04yx4", "bb"),
        ("0a1b", "/m/01g317", "cc"),
        ("0c2d", "/m/01g317", "dd"),
    ):
        name = f"{image_id}_{label.replace('/', '')}_{box_id}.png"
        bitmap = np.zeros((15, 20), np.uint8)
        bitmap[2:8, 3 : 3 + 2 * len(rows) + 2] = 255
        (folder / "masks").mkdir(parents=True, exist_ok=True)
        Image.fromarray(bitmap).convert("1").save(folder / "masks" / name)
        rows.append([name, image_id, label, box_id, 0.1, 0.5, 0.1, 0.5, 0.9, ""])
        picture(folder / "train" / f"{image_id}.jpg", seed=len(rows))
    with (folder / "train-annotations-object-segmentation.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*columns, "PredictedIoU", "Clicks"], *rows])
    (folder / "class-descriptions.csv").write_text("/m/04yx4,Man\n/m/01g317,Person\n")
    return folder


def plain(folder: Path, entries: list[Any], name: str = "data.json") -> Path:
    """A JSON file of entries; pictures `a.jpg` and `b.jpg` beside it."""
    for seed, image in enumerate(("a.jpg", "b.jpg")):
        picture(folder / image, seed=seed)
    (folder / name).write_text(json.dumps(entries))
    return folder / name


def coco(folder: Path) -> Path:
    """A picture with two cups and a dog, one with a crowd of dogs, one with nothing; three categories."""
    rows = [(1, 1, 1, [LEFT], 0), (2, 1, 1, [RIGHT], 0), (3, 1, 2, [[14, 2, 20, 2, 20, 9, 14, 9]], 0)]
    annotations = [annotation(i, image, s, category_id=c, iscrowd=crowd) for i, image, c, s, crowd in rows]
    crowd = {"size": list(SIZE_HW), "counts": [600, 300, 300]}
    annotations += [annotation(4, 2, [LEFT], category_id=2), annotation(5, 2, crowd, category_id=2, iscrowd=1)]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": SIZE_HW[0], "width": SIZE_HW[1]} for i in (1, 2, 3)]
    for i in (1, 2, 3):
        picture(folder / f"{i}.jpg", seed=i)
    categories = [{"id": i, "name": name} for i, name in ((1, "cup"), (2, "dog"), (3, "train"))]
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path
