"""What readers share: finding image files, and warnings that count."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from deixis.data.images import IMAGE_SUFFIXES
from deixis.errors import DataError
from deixis.geometry.boxes import clip_boxes
from deixis.records import Instances


class ImageIndex:
    """The image files of some folders, by name and by stem, upper and lower case alike; earlier folders win."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.by_name: dict[str, Path] = {}
        self.by_stem: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    self.by_name.setdefault(path.name.lower(), path)
                    self.by_stem.setdefault(path.stem.lower(), path)

    def find(self, file_name: str, stem: str) -> Path | None:
        """The image of that name (its folders ignored), else the one with that stem."""
        name = file_name.replace("\\", "/").rsplit("/", 1)[-1].lower()
        return self.by_name.get(name) or self.by_stem.get(stem.lower())


def resolve_image(folder: Path, file_name: str) -> Path | None:
    """`file_name` in a folder: as written, with Windows separators turned, or without its own folders."""
    posix = file_name.replace("\\", "/")
    for candidate in (folder / file_name, folder / posix, folder / posix.rsplit("/", 1)[-1]):
        if candidate.is_file():
            return candidate
    return None


def require_no_missing(source: str, missing: Sequence[str], total: int, searched: Sequence[Path]) -> None:
    """Raises:
    DataError: naming the first missing image, how many there are, and where they were looked for.
    """
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {total} image files not found, the first is {missing[0]!r}; looked in "
            f"{', '.join(map(str, searched))}; give their folder with --images"
        )


def clip_instances(instances: Instances, size_hw: tuple[int, int]) -> tuple[Instances, int]:
    """Boxes cut to the image; the objects without area that this leaves are dropped and counted."""
    boxes = clip_boxes(instances.boxes_xyxy_px, size_hw)
    keep = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    clipped = Instances(boxes, instances.class_ids, instances.is_crowd, instances.areas_px, instances.masks_rle)
    return clipped.select(keep), int(np.count_nonzero(~keep))


def warn_dropped(source: str, dropped: Sequence[str]) -> None:
    """One warning for all boxes dropped, naming the first."""
    if dropped:
        warnings.warn(
            f"{source}: dropped {len(dropped)} boxes without area inside their image, the first in {dropped[0]}",
            stacklevel=3,
        )
