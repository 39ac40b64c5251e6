"""A data set, or what changed between two versions of one, on one HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from deixis.records import Sample
from deixis.reporting.data import DatasetFacts
from deixis.reporting.page import Bars, Cell, Table, numbers, write_page
from deixis.reporting.pictures import Picture, annotated_pictures, drawn
from deixis.reporting.plots import histogram


@dataclass(frozen=True)
class Spreads:
    """What is drawn as histograms; crowds are left out.

    Attributes:
        objects_per_image: one per image.
        relative_sides: of each box, the root of its area over the root of its image's.
        aspects: of each box, width over height.
        image_aspects: of each image, width over height.
    """

    objects_per_image: Float[np.ndarray, " images"]
    relative_sides: Float[np.ndarray, " boxes"]
    aspects: Float[np.ndarray, " boxes"]
    image_aspects: Float[np.ndarray, " images"]


def write_dataset_page(path: Path, facts: DatasetFacts, spreads: Spreads, pictures: Iterable[Sample]) -> None:
    """Write the page.

    Args:
        pictures: samples with decoded images, drawn with their annotations.

    Raises:
        DataError: the place cannot be written.
    """
    ratio = "width over height"
    most = max([*facts.boxes_per_class.values(), 1])
    ordered = sorted(facts.boxes_per_class.items(), key=lambda item: -item[1])
    write_page(
        path,
        "dataset",
        title=facts.name,
        counts={
            "Images": facts.images,
            "Objects": facts.boxes,
            "Class names": len(facts.boxes_per_class),
            "Images without an object": facts.empty_images,
        },
        facts=Table(["", ""], [[name.capitalize(), numbers(values)] for name, values in facts.rows().items()], 1),
        histograms={
            "Objects per image": histogram(spreads.objects_per_image, "objects", whole=True),
            "Size of objects, as a share of the image's side": histogram(spreads.relative_sides, "share"),
            "Shape of objects, width over height": histogram(spreads.aspects, ratio, log=True),
            "Shape of images, width over height": histogram(spreads.image_aspects, ratio, log=True),
        },
        classes=Table(
            ["Class", "", "Objects"],
            [[name, Bars(((count / most, "after"),)), count] for name, count in ordered],
            1,
            scroll=True,
        ),
        pictures=annotated_pictures(pictures),
    )


def write_difference_page(
    path: Path,
    titles: Sequence[str],
    counts: Mapping[str, int],
    classes: Sequence[Sequence[Cell]],
    pictures: Sequence[Picture],
    changed: int,
) -> None:
    """Write the page.

    Args:
        titles: that of the page, then of the columns of numbers.
        classes: name and numbers of each class.
        pictures: two of each image, before and after.
        changed: images that changed, of which some may be shown.

    Raises:
        DataError: the place cannot be written.
    """
    write_page(
        path,
        "difference",
        title=titles[0],
        counts=dict(counts),
        classes=Table(["Class", *titles[1:]], [list(row) for row in classes], len(titles) - 1, scroll=True),
        pictures=list(pictures),
        more=changed - len(pictures) // 2,
    )


def write_augmented_page(path: Path, shown: Iterable[tuple[Sample, str]], epochs: int, note: str) -> None:
    """Write training images as the model is shown them.

    Args:
        shown: transformed samples with what is asked for in each, an image's epochs one after the other.
        epochs: of each image, which stand side by side.

    Raises:
        DataError: the place cannot be written.
    """
    figures = []
    for sample, asked in shown:
        assert isinstance(sample.image, np.ndarray)
        caption = f"{sample.source or sample.image_id}: {len(sample.instances)} objects; asked for {asked}"
        figures.append(drawn(caption, sample.image, sample))
    write_page(path, "augmented", figures=figures, columns=epochs, note=note)
