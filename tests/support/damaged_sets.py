"""A copy of a real COCO set with many kinds of damage, and the finding that each must yield."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

Row = dict[str, Any]
Expected = set[tuple[str, str]]  # (kind of finding, what its file or place ends with)
TRAIN, VAL = "instances_coco_tiny_train2017.json", "instances_tiny_coco_val.json"


class DamagedSet:
    """The set being damaged: its lists, its images, and what is expected so far."""

    def __init__(self, shared_data: Path, folder: Path) -> None:
        source = shared_data / "coco_cc_instances"
        self.content = json.loads((source / TRAIN).read_text())
        self.labels = folder / "train" / "labels.json"
        self.images = folder / "train" / "images"
        shutil.copytree(source / "coco_tiny_train2017", self.images)
        self.val_labels, self.val_images = folder / "val" / "labels.json", folder / "val" / "images"
        shutil.copytree(source / "tiny_coco_val", self.val_images)
        self.val_content = json.loads((source / VAL).read_text())
        for path in [*self.images.iterdir(), *self.val_images.iterdir()]:
            path.chmod(0o644)
        self.images.chmod(0o755)
        self.val_images.chmod(0o755)
        self.expected: Expected = set()
        self._unused = sorted(self.content["images"], key=lambda row: -len(self.objects(row)))

    def damage(self) -> None:
        """Do everything of `DAMAGES`."""
        for change in DAMAGES:
            change(self)

    def write(self) -> None:
        """The annotation files."""
        self.labels.write_text(json.dumps(self.content))
        self.val_labels.write_text(json.dumps(self.val_content))

    def take(self, least: int = 0) -> Row:
        """An image that no damage has touched, with so many objects at least."""
        row = next(row for row in reversed(self._unused) if len(self.objects(row)) >= least)
        self._unused.remove(row)
        return row

    def objects(self, image: Row) -> list[Row]:
        return [row for row in self.content["annotations"] if row["image_id"] == image["id"]]

    def file(self, image: Row) -> Path:
        return self.images / image["file_name"]

    def expect(self, kind: str, where: str) -> None:
        self.expected.add((kind, where))

    def add(self, **row: Any) -> Row:
        """A new annotation, sound but for what is given."""
        image = row.pop("image", None)
        new = {
            "id": 9_000_000 + len(self.content["annotations"]),
            "image_id": image["id"] if image else 0,
            "category_id": 1,
            "bbox": [1, 1, 9, 7],
            "iscrowd": 0,
        }
        self.content["annotations"].append(new | row)
        return self.content["annotations"][-1]

    def add_image(self, file_name: str, like: Row) -> Row:
        row = like | {"id": 900_000 + len(self.content["images"]), "file_name": file_name}
        self.content["images"].append(row)
        return row


def missing_image(data: DamagedSet) -> None:
    image = data.take()
    data.file(image).unlink()
    data.expect("image_missing", image["file_name"])


def truncated_image(data: DamagedSet) -> None:
    image = data.take()
    content = data.file(image).read_bytes()
    data.file(image).write_bytes(content[: len(content) // 2])
    data.expect("image_unreadable", image["file_name"])


def image_of_text(data: DamagedSet) -> None:
    image = data.take()
    data.file(image).write_text("<html>404</html>")
    data.expect("image_unreadable", image["file_name"])


def resized_image(data: DamagedSet) -> None:
    image = data.take(least=3)
    with Image.open(data.file(image)) as picture:
        half = picture.resize((picture.width // 2, picture.height // 2))
    half.save(data.file(image))
    data.expect("size_mismatch", image["file_name"])


def wrong_size(data: DamagedSet) -> None:
    image = data.take(least=1)
    image["width"] += 200
    data.expect("size_mismatch", image["file_name"])


def no_size(data: DamagedSet) -> None:
    image = data.take()
    image["height"] = -5
    data.expect("record_malformed", f"image {image['id']}")


def annotated_before_rotation(data: DamagedSet) -> None:
    image = data.take()
    _save_with_orientation(data.file(image), turn=False)
    data.expect("exif_conflict", image["file_name"])


def rotated_and_annotated_upright(data: DamagedSet) -> None:
    image = data.take()
    _save_with_orientation(data.file(image), turn=True)
    data.expect("exif_rotated", image["file_name"])


def _save_with_orientation(file: Path, turn: bool) -> None:
    """EXIF says to turn the picture by a quarter; with `turn` it is stored so that this shows it as before."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(file) as picture:
        stored = picture.transpose(Image.Transpose.ROTATE_90) if turn else picture.copy()
    stored.save(file, exif=exif, quality=92)


def boxes(data: DamagedSet) -> None:
    image = data.take(least=2)
    width = image["width"]
    bad: list[tuple[str, list[Any]]] = [
        ("box_outside", [width - 40, 5, 90, 30]),
        ("box_degenerate", [30, 30, 0, 12]),
        ("box_degenerate", [width + 20, 5, 30, 30]),
        ("box_tiny", [50, 7, 1, 40]),
        ("box_malformed", [1, float("nan"), 10, 10]),
        ("box_malformed", [5, 5, 10]),
        ("box_malformed", ["five", 5, 10, 10]),
    ]
    for kind, box in bad:
        row = data.add(image=image, bbox=box)
        data.expect(kind, f"annotation {row['id']}")


def repeated_objects(data: DamagedSet) -> None:
    image = data.take(least=1)
    data.add(image=image, bbox=[10, 20, 60, 50])
    again = data.add(image=image, bbox=[10, 20, 61, 50])
    data.expect("box_repeated", f"annotation {again['id']}")
    other = data.add(image=image, bbox=[10, 20, 60, 50.5], category_id=2)
    data.expect("box_two_classes", f"annotation {other['id']}")


def masks(data: DamagedSet) -> None:
    wrong, image = data.take(least=1), data.take(least=2)
    height, width = image["height"], image["width"]
    row = data.add(image=wrong, segmentation={"size": [3, 3], "counts": [9]})
    data.expect("mask_malformed", f"annotation {row['id']}")
    row = data.add(image=image, segmentation={"size": [height, width], "counts": [height * width]})
    data.expect("mask_empty", f"annotation {row['id']}")
    row = data.add(image=image, bbox=[30, 1, 9, 7], segmentation=[[100, 100, 180, 100, 180, 160]])
    data.expect("mask_off_box", f"annotation {row['id']}")
    row = data.add(image=image, bbox=[60, 1, 9, 7], segmentation=[[60, 1, 69, 1, 69, 8, 60, 8]], area=-3)
    data.expect("area_malformed", f"annotation {row['id']}")


def copies(data: DamagedSet) -> None:
    image = data.take(least=1)
    shutil.copy(data.file(image), data.images / "copy.jpg")
    copy = data.add_image("copy.jpg", image)
    data.add(image=copy, bbox=[40, 40, 33, 35])
    data.expect("image_repeated", "copy.jpg")
    data.expect("copies_disagree", "copy.jpg")
    with Image.open(data.file(image)) as picture:
        picture.save(data.images / "near.jpg", quality=40)
    data.add(image=data.add_image("near.jpg", image))
    data.expect("image_near", image["file_name"])


def listed_twice(data: DamagedSet) -> None:
    image = data.take(least=1)
    again = data.add_image(image["file_name"], image)
    for row in data.objects(image):
        data.content["annotations"].append(row | {"id": row["id"] + 7_000_000_000_000, "image_id": again["id"]})
    data.expect("image_listed_twice", f"image {again['id']}")


def ids(data: DamagedSet) -> None:
    one, two = data.take(), data.take()
    for row in data.objects(two):
        row["image_id"] = one["id"]
    two["id"] = one["id"]
    data.expect("id_repeated", f"image {one['id']}")
    data.content["categories"].append({"id": 1, "name": "somebody"})
    data.expect("id_repeated", "category 1")
    image = data.take(least=1)
    first = data.objects(image)[0]
    data.add(image=image, bbox=[3, 3, 30, 30], id=first["id"])
    data.expect("annotation_id_repeated", f"annotation {first['id']}")
    row = data.add(image_id=12345678)
    data.expect("image_unknown", f"annotation {row['id']}")
    row = data.add(image=image, category_id=777)
    data.expect("category_unknown", f"annotation {row['id']}")


def records(data: DamagedSet) -> None:
    data.content["annotations"].append("nothing")
    data.expect("record_malformed", f"annotations number {len(data.content['annotations'])}")
    data.content["images"].append({"id": 555, "width": 10, "height": 10})
    data.expect("record_malformed", "image 555")
    data.content["categories"].append({"id": 801})
    data.expect("record_malformed", "category 801")
    row = data.add(image=data.content["images"][0])
    del row["bbox"]
    data.expect("record_malformed", f"annotation {row['id']}")


def names(data: DamagedSet) -> None:
    new = {802: "Person", 803: "traffic_light", 804: "st. bernard", 805: "...", 806: "person", 807: "trafic?light"}
    data.content["categories"] += [{"id": key, "name": name} for key, name in new.items()]
    image = data.take(least=1)
    for place, key in enumerate((802, 803, 804, 806)):
        data.add(image=image, category_id=key, bbox=[5 + 40 * place, 5, 30, 30])
    data.expect("names_same", "class 'Person'")
    data.expect("names_alike", "class 'traffic_light'")
    data.expect("name_delimiter", "class 'st. bernard'")
    data.expect("name_delimiter", "class 'trafic?light'")
    data.expect("name_wordless", "class '...'")
    data.expect("name_repeated", "category 806")
    data.expect("class_unused", "class 'trafic?light'")


def nothing_to_learn(data: DamagedSet) -> None:
    for name, kind in (("empty.png", "image_empty"), ("crowd.png", "image_crowd_only"), ("unlisted.png", "")):
        colours = {"empty.png": (200, 30, 30), "crowd.png": (20, 90, 30), "unlisted.png": (0, 0, 90)}
        Image.new("RGB", (64, 48), colours[name]).save(data.images / name)
        if kind:
            row = data.add_image(name, {"width": 64, "height": 48})
            data.expect(kind, name)
            if kind == "image_crowd_only":
                data.add(image=row, iscrowd=1)
    data.expect("image_not_listed", "images")


def leaks(data: DamagedSet) -> None:
    val = data.val_content["images"]
    shutil.copy(data.val_images / val[0]["file_name"], data.images / "leak.jpg")
    data.add(image=data.add_image("leak.jpg", val[0]), bbox=[50, 50, 90, 90])
    data.expect("leak_same", "leak.jpg")
    with Image.open(data.val_images / val[1]["file_name"]) as picture:
        picture.save(data.images / "near_leak.jpg", quality=50)
    data.add(image=data.add_image("near_leak.jpg", val[1]), bbox=[50, 50, 90, 90])
    data.expect("leak_near", val[1]["file_name"])


DAMAGES: list[Callable[[DamagedSet], None]] = [
    *(missing_image, truncated_image, image_of_text, resized_image, wrong_size, no_size),
    *(annotated_before_rotation, rotated_and_annotated_upright, boxes, repeated_objects, masks, copies),
    *(listed_twice, ids, names, nothing_to_learn, leaks, records),
]
