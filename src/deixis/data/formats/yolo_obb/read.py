"""YOLO with turned boxes as plain boxes: those around them. As `yolo` the same files give polygons, and so masks."""

from __future__ import annotations

from pathlib import Path

from deixis.data.findings import Findings
from deixis.data.formats.annotation_files import holds_text
from deixis.data.formats.yolo.read import find_yolo, read_yolo
from deixis.data.formats.yolo_obb.write import MARK
from deixis.records import Instances, SampleList


def find_yolo_obb(path: Path) -> list[Path]:
    """The YAML files that say of themselves that their boxes are turned, as those written here do."""
    return [file for file in find_yolo(path) if holds_text(file, MARK)]


def read_yolo_obb(
    path: str | Path, images: Path | None = None, split: str | None = None, findings: Findings | None = None
) -> SampleList:
    """A YOLO data set by its `data.yaml` or folder; each object is the upright box around its corners.

    Args and errors: those of `read_yolo`.
    """
    found = read_yolo(path, images, masks=False, split=split, findings=findings)
    samples = (
        sample.evolve(instances=Instances.build(sample.instances.boxes_xyxy_px, sample.instances.class_ids))
        for sample in found.samples
    )
    return SampleList(tuple(samples), found.vocabulary, found.name)
