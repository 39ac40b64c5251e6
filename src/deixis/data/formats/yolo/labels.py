"""YOLO's label lines, and whose labels they are."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import read_text
from deixis.data.formats.find_images import spellings
from deixis.data.formats.yolo.layout import YoloLayout, label_file
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import require_regular
from deixis.errors import DataError

LabelRow = tuple[int, list[float]]
_NO_LABELS = {"classes", "labels", "obj", "predefined_classes", "names", "train", "val", "valid", "test", "readme"}
_NAMED = 3
_SAME_MIDDLE = 2e-3  # shares: corners are rounded when they are written
_OUTSIDE = 0.01  # drawn polygons may leave their image by a rounding, not by more


class LabelFiles:
    """The label file of each picture: of its own name, or of one spelled otherwise (percent-encoded, NFD).

    `unmatched` are the label files that belong to no picture; their objects would be lost, and the pictures that
    they mean taken for background.
    """

    def __init__(self, images: Sequence[Path]) -> None:
        self._given: dict[Path, Path] = {}
        self.unmatched: list[Path] = []
        wanted: dict[Path, set[str]] = defaultdict(set)
        without: list[Path] = []
        for image in images:
            own = label_file(image)
            wanted[own.parent].add(own.name)
            if not own.is_file():
                without.append(image)
        for folder, names in wanted.items():
            self._match(folder, names, [image for image in without if label_file(image).parent == folder])

    def _match(self, folder: Path, names: set[str], without: Sequence[Path]) -> None:
        if not folder.is_dir():
            return
        images = {spelling: image for image in without for spelling in spellings(image.stem)}
        for file in sorted(folder.glob("*.txt")):
            if file.name in names or is_left_by_macos(file) or not is_label_file(file):
                continue
            image = next((images[text] for text in spellings(file.stem) if text in images), None)
            if image is not None and image not in self._given:
                self._given[image] = file
            else:
                self.unmatched.append(file)

    def of(self, image: Path) -> Path:
        """Where the labels of a picture are, or would be."""
        return self._given.get(image, label_file(image))

    def warn(self, source: Path) -> None:
        """Name the label files that are found by another spelling, and those that belong to no picture."""
        if self._given:
            image, file = next(iter(self._given.items()))
            warnings.warn(
                f"{source}: {len(self._given)} label files are spelled otherwise than their images, as {file.name} "
                f"for {image.name}; read as theirs",
                stacklevel=3,
            )
        if self.unmatched:
            named = ", ".join(file.name for file in self.unmatched[:_NAMED])
            more = ", …" if len(self.unmatched) > _NAMED else ""
            warnings.warn(
                f"{source}: {len(self.unmatched)} label files belong to no image: {named}{more}; restore or rename "
                "their images, or remove the label files",
                stacklevel=3,
            )


def is_label_file(file: Path) -> bool:
    """Whether a text file is one of labels: its first line begins with numbers."""
    if file.stem.lower() in _NO_LABELS:
        return False
    try:
        require_regular(file)
        with file.open("rb") as content:
            fields = content.read(200).split(b"\n")[0].split()
        return len(fields) >= 5 and all(math.isfinite(float(field)) for field in fields[:5])
    except (OSError, ValueError, DataError):
        return False


def read_rows(file: Path, layout: YoloLayout, findings: Findings | None) -> list[LabelRow]:
    """The lines of a label file: class, and four numbers of a box or six and more of a polygon.

    Raises:
        DataError: without findings, the first line that is neither.
    """
    rows = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            with collecting(findings, "record_malformed", file, f"line {number}", "line removed"):
                rows.append(_row(line.split(), f"{file}: line {number}", layout))
    return rows


def _row(fields: Sequence[str], where: str, layout: YoloLayout) -> LabelRow:
    try:
        label, values = float(fields[0]), [float(field) for field in fields[1:]]
    except ValueError as error:
        raise DataError(f"{where}: expected numbers, got {' '.join(fields)[:80]!r}; correct the line") from error
    if label not in range(len(layout.names)):
        raise DataError(f"{where}: class {fields[0]} is not one of the {len(layout.names)} names of {layout.file.name}")
    if not all(map(math.isfinite, values)):
        raise DataError(f"{where}: numbers must be shares of the image's size, from 0 to 1, got {values[:8]}")
    if layout.keypoints and len(values) > 4:
        values = values[:4]
    elif len(values) == 5:
        raise DataError(
            f"{where}: expected a class and 4 numbers of a box, got 5: predictions with a confidence? Save them "
            "without it (save_conf=False), or remove the last column"
        )
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        keypoints = _keypoints(values)
        hint = f"; a box and {keypoints}? add that to {layout.file.name}" if keypoints else ""
        raise DataError(
            f"{where}: expected a class and 4 numbers of a box or 6 and more of a polygon, got {len(values)}{hint}"
        )
    if len(values) > 4 and not _is_parallelogram(values):  # turned boxes may reach out of the image
        _require_polygon(values, where, layout)
    # Turned boxes and roundings leave the image a little, pixels far.
    if max(map(abs, values)) > 2:
        hint = "; pixels? divide them by the image's width and height" if min(values) >= 0 else ""
        raise DataError(f"{where}: numbers must be shares of the image's size, from 0 to 1, got {values[:8]}{hint}")
    return int(label), values


def _require_polygon(values: Sequence[float], where: str, layout: YoloLayout) -> None:
    """A box with keypoints is no polygon: its visibility flags are 0, 1 or 2, and its points lie in its box."""
    keypoints = _keypoints(values)
    inside = min(values) >= -_OUTSIDE and max(values) <= 1 + _OUTSIDE
    if inside and (keypoints is None or not keypoints.endswith("3]")):
        return
    why = "whose every third number is 0, 1 or 2" if inside else "with coordinates outside of 0 to 1"
    hint = f"a box and {keypoints}? add that to {layout.file.name}" if keypoints else "correct the line"
    raise DataError(f"{where}: {len(values)} numbers {why} are no polygon; {hint}")


def _keypoints(values: Sequence[float]) -> str | None:
    """`kpt_shape: [N, 3]` where numbers fit as a box and N keypoints x, y, visible; [N, 2] without visibility."""
    points = values[4:]
    if points and len(points) % 3 == 0 and set(points[2::3]) <= {0.0, 1.0, 2.0}:
        return f"kpt_shape: [{len(points) // 3}, 3]"
    return f"kpt_shape: [{len(points) // 2}, 2]" if points and len(points) % 2 == 0 and _in_box(values) else None


def _in_box(values: Sequence[float]) -> bool:
    """Whether all but four numbers, as points, lie in the box of the first four; points at 0, 0 are not annotated."""
    cx, cy, width, height = values[:4]
    points = np.array(values[4:]).reshape(-1, 2)
    points = points[points.any(1)]
    away = np.abs(points - [cx, cy]) - [width / 2 + _OUTSIDE, height / 2 + _OUTSIDE]
    return len(points) > 0 and bool((away <= 0).all())


def _is_parallelogram(values: Sequence[float]) -> bool:
    """Whether numbers are the four corners of a turned box: its diagonals have one middle."""
    if len(values) != 8:
        return False
    corners = np.array(values).reshape(4, 2)
    return bool(np.abs(corners[0] + corners[2] - corners[1] - corners[3]).max() < _SAME_MIDDLE)


def require_no_keypoints(rows: Iterable[Sequence[LabelRow]], layout: YoloLayout) -> None:
    """A data set whose every polygon fits as a box and keypoints x, y is one of poses, not of polygons.

    Raises:
        DataError: it is.
    """
    long = [values for found in rows for _, values in found if len(values) > 4]
    turned_boxes = 2 * sum(map(_is_parallelogram, long)) >= len(long)
    alike = len(long) > 1 and len({len(values) for values in long}) == 1
    if alike and not turned_boxes and all(map(_in_box, long)):
        raise DataError(
            f"{layout.file}: all {len(long)} lines of {len(long[0])} numbers fit as a box and points in it, not as "
            f"polygons; add 'kpt_shape: [{(len(long[0]) - 4) // 2}, 2]' to the file"
        )
