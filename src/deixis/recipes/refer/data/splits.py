"""The parts that a data set's authors made: RefCOCO's validation and test splits in place of images held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from deixis.data.pixels.image_hash import groups_of
from deixis.data.refer_formats import read_refer
from deixis.data.refer_formats.entries import warn_left_out
from deixis.data.refer_formats.refcoco import splits_of
from deixis.data.scenes.refer_scenes import ReferScenes
from deixis.data.sets.mixing import Joined
from deixis.data.sets.split import hold_out, image_hashes
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.recipes.run.data import SPLIT_SEED
from deixis.refer_records import ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset

VALIDATION, TEST = ("val",), ("testA", "testB", "test")  # UNC's names, and UMD's


def official_parts(refcoco_dir: Path | None, images: Path | None, with_test: bool) -> dict[str, list[ReferDataset]]:
    """The `validation` and `test` data of --refcoco-dir; empty where it has no validation split.

    Args:
        images: folder of its images, if it does not name it.
        with_test: read its test splits; no test data is given.

    Raises:
        DataError: they cannot be read.
    """
    if refcoco_dir is None:
        return {}
    there = splits_of(refcoco_dir)
    if not set(VALIDATION) & set(there):
        return {}

    def read(names: Sequence[str]) -> list[ReferDataset]:
        return [read_refer(str(refcoco_dir), images, "refcoco", n) for n in names if n in there]

    return {"validation": read(VALIDATION), "test": read(TEST) if with_test else []}


def without_images_of(
    source: ReferDataset | ClipDataset, official: Sequence[ReferDataset]
) -> ReferDataset | ClipDataset:
    """The source less the pictures that validation and test are made of, by their file names: sets made of COCO share
    photographs, and Google's split of RefCOCOg has images on both sides.

    Raises:
        DataError: none is left.
    """
    if isinstance(source, ReferScenes | Joined) or not official:
        return source
    theirs = {name for part in official for index in range(len(part)) if (name := _name(part[index]))}
    kept: list[int] = []
    taken: list[int] = []
    for index in range(len(source)):
        sample: ReferSample | Clip = source[index]
        # Frames of clips have no names that could be compared.
        if isinstance(sample, Clip):
            return source
        (taken if _name(sample) in theirs else kept).append(index)
    if not kept:
        raise DataError(
            f"{source.name}: all of its images are in the validation or test split; name --val-data instead"
        )
    if not taken:
        return source
    warn_left_out(
        source.name, "images that the validation or test split has too", [str(_name(source[taken[0]]))] * len(taken)
    )
    return cast(ReferDataset, Subset(source, tuple(kept), source.name))


def _name(sample: ReferSample | Clip) -> str | None:
    return sample.image.name if isinstance(sample, ReferSample) and isinstance(sample.image, Path) else None


def note_on_official(official: dict[str, list[ReferDataset]]) -> str:
    """A line of the plan: which splits are measured."""

    def said(parts: list[ReferDataset]) -> str:
        return " + ".join(f"{part.name} ({len(part):,} images)" for part in parts)

    test = f"; figures are reported on its own test splits: {said(official['test'])}" if official["test"] else ""
    return f"the epoch is chosen on the data set's own validation split: {said(official['validation'])}{test}"


VALIDATION_SHARE = 0.1

Source = ReferDataset | ClipDataset
"""Images or clips."""


def held_out(sources: Sequence[Source], shares: Sequence[float] = (VALIDATION_SHARE,)) -> list[tuple[Source, ...]]:
    """(training, validation, ...) of each data set: the shares of its images, at least one each, are held out.

    An image that is held out of one data set is trained on in none, nor is a copy or near copy of it: RefCOCO and
    RefCOCO+ ask about the same photographs. Groups of copies stay together, so a little more may be held out. Clips
    are held out whole, and are not compared.

    Raises:
        DataError: a data set of which nothing would be left to train on; an image cannot be read.
    """
    names = [source.name for source in sources]
    found = hold_out(_image_groups(sources), names, [len(source) for source in sources], shares, SPLIT_SEED)
    roles = ("less those held out", "held out", "held out for test")
    return [
        tuple(
            subset(source, positions, f"{source.name}, {role}") for positions, role in zip(parts, roles, strict=False)
        )
        for source, parts in zip(sources, found, strict=True)
    ]


def subset(source: Source, indices: tuple[int, ...], name: str) -> Source:
    """Some images, or clips, of a data set."""
    return cast(Source, Subset(source, indices, name))


def _image_groups(sources: Sequence[Source]) -> list[list[tuple[int, int]]]:
    """(data set, position) of images that are the same or nearly so, singles included. Generated scenes never are."""
    places = [[(number, index) for index in range(len(source))] for number, source in enumerate(sources)]
    drawn = [isinstance(source, ReferScenes) or isinstance(source[0], Clip) for source in sources]
    photos = [place for one, scenes in zip(places, drawn, strict=True) if not scenes for place in one]
    compared = [cast(ReferDataset, source) for source, scenes in zip(sources, drawn, strict=True) if not scenes]
    hashes = [hashed for source in compared for hashed in image_hashes(source)]
    groups = [[photos[index] for index in group] for group in groups_of(hashes)]
    return groups + [[place] for one, scenes in zip(places, drawn, strict=True) if scenes for place in one]
