"""What deixis knows of a format: one frozen record per format, in the format's own room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data.formats.placing import ImageMode
from deixis.records import Dataset, Sample


@dataclass(frozen=True)
class Holds:
    """What a written data set keeps; by default nothing but boxes and the names of their classes.

    Of a format that is only read, `masks` says whether it has any, so that it is read as phrases too.
    """

    masks: bool = False
    boxes_beside_masks: bool = True
    """Boxes other than the bounds of their masks."""
    areas: bool = False
    crowds: bool = False
    image_ids: bool = False
    category_ids: bool = False
    absent: bool = False
    """The classes that were looked for and not found, per image."""
    unknown: bool = False
    """Images of which nothing is known, neither what they show nor what they do not."""
    not_exhaustive: bool = False
    """The classes of which not every object is annotated, per image."""
    all_names: bool = True
    """Names of classes without objects, and the order of the names."""
    underscores: bool = True
    """`_` in names, distinct from a blank."""
    own_names: bool = False
    """Names of classes per image."""
    captions: bool = False
    scores: bool = False
    """Scores of a model's detections."""
    model_version: bool = False
    """The model that found the objects."""


@dataclass(frozen=True)
class Format:
    """A format of annotations, of phrases and masks, or of clips.

    Attributes:
        name: the value of `--format` and `--to`.
        find: the files of a folder that speak for the format, and a file itself if it is of the format; else none.
        read: called with the path (of a file, or of the folder that holds it), the folder of images, or None where
            they are in the usual places around it, and what `takes` names.
        takes: the further arguments of `read`, by name: `masks`, keep them; `split`, where a data set has several to
            choose from; `findings` or `faults`, which take what cannot be used (see `Findings` and `entries.settle`),
            so that it is left out and no error; of phrases `templates` and `objects`, as in `templated`.
        write: writes a data set into a new folder and returns what `read` takes; None where nothing is written,
            or where `write_parts` writes.
        write_parts: the same for several parts in one folder, read again as `PATH#PART`; None where each part is a
            data set of its own.
        holds: what `write` keeps.
        also_not_kept: what else writing these samples loses, one line each; given the vocabulary's data set too.
        yields_to: formats beside whose files in one folder the files of this one are taken for something else.
        refused: why data of the format cannot be used, where it is only recognised to be refused.
        decisive: a folder with such files is of this format, whatever else is in it; no later format is looked for.
    """

    name: str
    find: Callable[[Path], list[Path]]
    read: Callable[..., Any]
    takes: tuple[str, ...] = ()
    write: Callable[[Dataset, Path, ImageMode, bool], Path] | None = None
    write_parts: Callable[[Mapping[str, Dataset], Path, ImageMode, bool], Path] | None = None
    holds: Holds = Holds()
    also_not_kept: Callable[[Dataset, Sequence[Sample]], list[str]] | None = None
    yields_to: tuple[str, ...] = ()
    refused: str = ""
    decisive: bool = False

    @property
    def writes(self) -> bool:
        """Whether data sets can be written in the format."""
        return self.write is not None or self.write_parts is not None

    def arguments(self, **known: Any) -> dict[str, Any]:
        """Those of some named arguments that `read` takes."""
        return {name: value for name, value in known.items() if name in self.takes}
