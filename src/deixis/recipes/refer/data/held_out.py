"""The shares of a segmenter's data that are held out of training, whole images and clips at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from deixis.data.pixels.image_hash import groups_of
from deixis.data.scenes.refer_scenes import ReferScenes
from deixis.data.sets.split import hold_out, image_hashes
from deixis.data.sets.subset import Subset
from deixis.recipes.run.data import SPLIT_SEED
from deixis.refer_records import ReferDataset
from deixis.video_records import Clip, ClipDataset

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
