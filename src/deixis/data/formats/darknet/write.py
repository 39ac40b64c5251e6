"""Data sets to Darknet's layout, which CVAT imports as YOLO 1.1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.data.formats.yolo.write import label_lines
from deixis.records import Dataset

_KEYS = {"val": "valid"}


def write_darknet(parts: Mapping[str, Dataset], folder: Path, images: ImageMode, masks: bool) -> Path:
    """`obj.data`, `obj.names`, and for each part `train.txt` and `obj_train_data/`. Crowds are left out.

    Returns:
        `obj.data`, for `read_darknet`.
    """
    del masks  # Darknet has boxes only
    with new_folder(folder) as draft:
        names = next(iter(parts.values())).vocabulary.names
        settings = [f"classes = {len(names)}"]
        for part, dataset in parts.items():
            key = _KEYS.get(part, part)
            place = f"obj_{key}_data"
            lines = []
            for sample, name in placed(dataset, draft / place, images):
                text = "".join(f"{line}\n" for line in label_lines(sample, masks=False))
                (draft / place / name).with_suffix(".txt").write_text(text)
                lines.append(f"data/{place}/{name}\n")  # as in CVAT's exports, whose archives have no folder `data`
            (draft / f"{key}.txt").write_text("".join(lines), encoding="utf-8")
            settings.append(f"{key} = data/{key}.txt")
        settings += ["names = data/obj.names", "backup = backup/"]
        (draft / "obj.data").write_text("".join(f"{line}\n" for line in settings))
        (draft / "obj.names").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return folder / "obj.data"
