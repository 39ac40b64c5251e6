"""Where a detector's data comes from: what is given, and what is held out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deixis.data.formats import read_dataset
from deixis.data.formats.review.read import correction_line
from deixis.data.sets.split import duplicate_groups, hold_out
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.options.annotated_data import ClassTools
from deixis.options.detect_train import DetectData
from deixis.recipes.data.chosen import EVERYTHING, Say, chosen, used_names
from deixis.recipes.detect.data.facts import has_objects, joined
from deixis.recipes.run.data import SPLIT_SEED, RunData, held_out_shares, note_on_parts
from deixis.records import Dataset

VALIDATION_SHARE = 0.2  # of the training data, where validation is all that is held out
SHARE_OF_EACH = 0.15  # for validation and for test, where both are
NOTHING_HELD_OUT = (
    "nothing is held out: all images train for the whole schedule, and the last weights are kept; figures on "
    "validation data are those of the training images themselves and say nothing of others"
)


def read_training_data(data: DetectData, tools: ClassTools = EVERYTHING, masks: bool = False) -> RunData[Dataset]:
    """The data of a run; what is not given is held out of the training data.

    Args:
        tools: what is used of the data.
        masks: training data with its masks, where it has some.

    Raises:
        DataError: they cannot be read, are empty, or validation or test data has no object.
        OptionError: `tools` names no class of the data.
    """
    left_out: list[str] = []
    parts, validation, test, used = read_all(data, tools, left_out.append, masks=masks)
    images = sum(map(len, parts))
    shares: tuple[float, ...] = ()
    # The training images themselves: something has to be measured, and the report says what it is worth.
    if validation is None and data.without_validation:
        validation = joined(parts)
    elif validation is None:
        shares = held_out_shares(images, VALIDATION_SHARE, SHARE_OF_EACH, test is not None)
        parts, *held = hold_out_of(parts, shares)
        validation = joined(held[0])
        test = joined(held[1]) if len(held) > 1 else test
    found = RunData(
        joined(parts),
        validation,
        test,
        NOTHING_HELD_OUT if data.without_validation else note_on_parts(shares, images, bool(data.test_data)),
        used=used,
        left_out=tuple(left_out),
        reviewed=tuple(filter(None, map(correction_line, data.data))),
    )
    for what, given, measured in (("validation", data.val_data, validation), ("test", data.test_data, test)):
        if measured is not None and not has_objects(measured):
            raise DataError(f"{given or ', '.join(data.data)}: no object in the {what} data; nothing can be measured")
    return found


def read_all(
    data: DetectData, tools: ClassTools = EVERYTHING, say: Say = lambda line: None, *, masks: bool = False
) -> tuple[list[Dataset], Dataset | None, Dataset | None, dict[str, str] | None]:
    """(training, validation, test) data with the classes that are used, and `used_names`; what is not given is None.

    Raises:
        DataError: they cannot be read.
        OptionError: `tools` names no class of any of them.
    """
    parts, measured = read_parts(data, masks), read_measured(data)
    used = used_names([*parts, *(one for one in measured if one is not None)], tools)
    parts = [chosen(part, tools, used, say) for part in parts]
    validation, test = (
        None if one is None else chosen(one, tools, used, lambda line: None, sample=False) for one in measured
    )
    return parts, validation, test, used


def read_measured(data: DetectData) -> tuple[Dataset | None, Dataset | None]:
    """(validation, test) data, each None where it is not given.

    Raises:
        DataError: they cannot be read.
    """
    given = ((data.val_data, data.val_images), (data.test_data, data.test_images))
    validation, test = (
        read_dataset(path, images, data.format, masks=False) if path else None for path, images in given
    )
    return validation, test


def hold_out_of(parts: Sequence[Dataset], shares: Sequence[float]) -> list[list[Dataset]]:
    """The data sets without what is held out of them, then what is held out for each share, in data set order.

    An image held out of one data set is trained on in none, nor is a copy or near copy of it.

    Raises:
        DataError: an image cannot be read; a data set has too few images that differ.
    """
    places = [(number, index) for number, part in enumerate(parts) for index in range(len(part))]
    # copies across all data sets
    groups = [[places[place] for place in group] for group in duplicate_groups(joined(parts))]
    names = [str(getattr(part, "name", "data")) for part in parts]
    positions = hold_out(groups, names, [len(part) for part in parts], shares, SPLIT_SEED)
    roles = ("train", "validation", "test")
    return [
        [
            Subset(part, found[role], f"{name} ({roles[role]})")
            for part, name, found in zip(parts, names, positions, strict=True)
        ]
        for role in range(len(shares) + 1)
    ]


def read_parts(data: DetectData, masks: bool = False) -> list[Dataset]:
    """The training data sets, each with its own folder of images or with the one for all.

    Raises:
        DataError: one of them cannot be read.
    """
    places = zip(data.data, image_folders(data), strict=True)
    return [read_dataset(path, images, data.format, masks=masks) for path, images in places]


def image_folders(data: DetectData) -> Sequence[Path | None]:
    """The folder of images of each training data set."""
    return data.images if len(data.images) == len(data.data) else (data.images or (None,))[:1] * len(data.data)
