"""Data sets to a project of VIA 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.data.formats.shared.annotated_objects import outline_of
from deixis.records import Dataset, Sample

FILE, ATTRIBUTE = "via_project.json", "class"


def write_via(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`via_project.json`, which VIA 2 opens, and `images/`. Crowds are left out.

    An object with a mask becomes a polygon along the edges of the mask's pixels, so the mask comes back bit for bit;
    parts and holes are joined by cuts of no width. The class is the region attribute `class`, a list of all names.

    Returns:
        the JSON file, for `read_via`.
    """
    with new_folder(folder) as draft:
        found: dict[str, Any] = {}
        for sample, name in placed(dataset, draft / "images", images):
            size = (draft / "images" / name).stat().st_size
            found[f"{name}{size}"] = {  # VIA's own key of an image
                "filename": name,
                "size": size,
                "regions": _regions(sample, masks),
                "file_attributes": {},
            }
        names = {name: name for name in dataset.vocabulary.names}
        content = {
            "_via_settings": {
                "ui": {"annotation_editor_height": 25, "annotation_editor_fontsize": 0.8, "leftsidebar_width": 18},
                "core": {"buffer_size": 18, "filepath": {}, "default_filepath": "images/"},
                "project": {"name": folder.name},
            },
            "_via_img_metadata": found,
            "_via_attributes": {
                "region": {ATTRIBUTE: {"type": "dropdown", "description": "", "options": names, "default_options": {}}},
                "file": {},
            },
            "_via_data_format_version": "2.0.10",
            "_via_image_id_list": list(found),
        }
        (draft / FILE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder / FILE


def _regions(sample: Sample, masks: bool) -> list[dict[str, Any]]:
    objects = sample.instances.select(~sample.instances.is_crowd)
    regions = []
    for i, class_id in enumerate(objects.class_ids.tolist()):
        x1, y1, x2, y2 = objects.boxes_xyxy_px[i].tolist()
        shape: dict[str, Any] = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
        if masks and objects.masks_rle is not None:
            xs, ys = outline_of(objects.masks_rle[i], objects.boxes_xyxy_px[i]).T.tolist()
            shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
        regions.append({"shape_attributes": shape, "region_attributes": {ATTRIBUTE: sample.vocabulary.names[class_id]}})
    return regions
