"""What boxes and masks of one image have in common: they are chosen from, shown, saved and converted."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from deixis.data.formats.labelme.write import labelme_content
from deixis.data.inputs.pictures import Picture
from deixis.errors import DataError, OptionError
from deixis.records import Sample, Vocabulary
from deixis.results import exports

One = TypeVar("One")
Own = TypeVar("Own")  # not typing.Self, which beartype takes in decorated classes only


class Result(Sequence[One]):
    """The base of `Detections` and `Segmentations`, which have these fields, `rows`, `to_sample` and `to_coco`."""

    if TYPE_CHECKING:  # at run time properties here would keep a data class from having fields of these names

        @property
        def columns(self) -> tuple[str, ...]: ...  # the keys of `rows`
        @property
        def image(self) -> Picture | None: ...
        @property
        def names(self) -> tuple[str, ...]: ...
        @property
        def class_ids(self) -> Int[np.ndarray, " n"]: ...
        @property
        def scores(self) -> Float[np.ndarray, " n"]: ...
        @property
        def areas_px(self) -> Float[np.ndarray, " n"]: ...
        @property
        def boxes_xyxy_px(self) -> Float[np.ndarray, "n 4"]: ...
        @property
        def image_id(self) -> int: ...

        def plot(self) -> Image.Image: ...
        def rows(self) -> list[dict[str, Any]]: ...
        def to_sample(self, vocabulary: Vocabulary | None = None) -> Sample: ...
        def to_coco(self, vocabulary: Vocabulary | None = None) -> list[dict[str, Any]]: ...

    def filter(
        self: Own,
        names: str | Sequence[str] | None = None,
        min_score: float | None = None,
        min_area: float | None = None,
    ) -> Own:
        """Those of some names, from a score and from an area in square pixels: of boxes, or of masks, of which
        `min_area=1` drops the empty ones.

        Raises:
            OptionError: a name that was not looked for.
        """
        found: Any = self
        keep = np.ones(len(found), bool)
        if names is not None:
            keep &= np.isin(found.class_ids, chosen_names(names, found.names))
        if min_score is not None:
            keep &= found.scores >= min_score
        if min_area is not None:
            keep &= found.areas_px >= min_area
        chosen: Own = found[keep]
        return chosen

    def shown(self: Own) -> Own:
        """Those that can be written as annotations."""
        return self

    def pixels(self) -> UInt8[np.ndarray, "h w 3"]:
        """The image, decoded again.

        Raises:
            DataError: it is not known or cannot be read.
        """
        if self.image is None:
            hint = "set it: dataclasses.replace(found, image=Picture(...))"
            raise DataError(f"these results do not know their image; {hint}")
        return self.image.load()

    def save(self, path: str | Path) -> Path:
        """Write a file, by its suffix: a drawn picture (.jpg, .png, .webp), .json (COCO results), .txt (YOLO) or .csv.

        Raises:
            DataError: another suffix, the image cannot be read, or the file cannot be written.
        """
        return exports.save(self, Path(path))

    def to_yolo(self, scores: bool = False) -> str:
        """Lines of a YOLO label file: class, then centre and size, or a mask's outline, as shares of the image; and
        the score where asked.

        Raises:
            DataError: the size of the image is unknown.
        """
        return exports.yolo_text(self.to_sample(), self.shown().scores if scores else None)

    def to_labelme(self) -> dict[str, Any]:
        """The content of a labelme file.

        Raises:
            DataError: the size of the image is unknown.
        """
        name = "" if self.image is None or self.image.path is None else self.image.path.name
        return labelme_content(self.to_sample(), name)

    def to_pandas(self) -> Any:
        """A table with the columns of `rows`.

        Raises:
            OptionError: pandas is not installed.
        """
        return exports.table(self.rows(), self.columns)

    def _repr_html_(self) -> str:
        return exports.html(self)


def chosen_names(names: str | Sequence[str], known: Sequence[str]) -> list[int]:
    """The class ids of some names.

    Raises:
        OptionError: one of them is not known.
    """
    asked = [names] if isinstance(names, str) else list(names)
    for name in asked:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(map(repr, known[:20]))}"
            raise OptionError(f"names: {name!r} is not among the names that were looked for{hint}")
    return [class_id for class_id, name in enumerate(known) if name in asked]


def require_share(name: str, value: float) -> None:
    """Raises OptionError unless a number is between 0 and 1."""
    if not 0 <= value <= 1:
        raise OptionError(f"{name} must be between 0 and 1, got {value}")
