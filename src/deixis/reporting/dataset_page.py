"""A data set on one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from jaxtyping import Float

from deixis.atomic_files import write_atomic
from deixis.records import Sample
from deixis.reporting import plots
from deixis.reporting.data import DatasetFacts
from deixis.reporting.markup import bar, columns, escape, number, section, table
from deixis.reporting.pictures import annotated_pictures


@dataclass(frozen=True)
class Spreads:
    """What is drawn as histograms; crowds are left out.

    Attributes:
        objects_per_image: one an image.
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
    sections = {
        "Counts": _counts(facts),
        "Spreads": _histograms(spreads),
        "Classes": _classes(facts),
        "Pictures": annotated_pictures(pictures),
    }
    shown = {name: body for name, body in sections.items() if body}
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name in shown)
    body = f"<h1>{escape(facts.name)}</h1><nav>{links}</nav>"
    body += "".join(section(name, name.lower(), content) for name, content in shown.items())
    write_atomic(path, Template(_template()).substitute(title=escape(facts.name), body=body))


def is_our_page(text: str) -> bool:
    """Whether a page was written by this package."""
    return text.startswith(_template().partition("$title")[0])


def _template() -> str:
    return files("deixis.reporting").joinpath("report.html").read_text(encoding="utf-8")


def _counts(facts: DatasetFacts) -> str:
    tiles = {
        "Images": facts.images,
        "Objects": facts.boxes,
        "Class names": len(facts.boxes_per_class),
        "Images without an object": facts.empty_images,
    }
    tiles_html = "".join(
        f'<div class="tile"><div class="name">{name}</div><div class="value">{number(value)}</div></div>'
        for name, value in tiles.items()
    )
    sizes = " / ".join(f"{width}×{height}" for height, width in facts.image_sizes_hw)
    rows = [
        ["Crowd regions", number(facts.crowds)],
        ["Most objects in an image", number(facts.max_boxes)],
        ["Objects small / medium / large", " / ".join(number(n) for n in facts.boxes_per_size.values())],
        ["Object side, least / median / most, px", " / ".join(f"{side:.0f}" for side in facts.box_side_px)],
        ["Image size, least / median / most, px", sizes],
    ]
    return f'<div class="tiles">{tiles_html}</div>{table(["", ""], rows, 1)}'


def _histograms(spreads: Spreads) -> str:
    shown = {
        "Objects in an image": plots.histogram(spreads.objects_per_image, "objects", whole=True),
        "Size of objects, share of the image's side": plots.histogram(spreads.relative_sides, "share"),
        "Shape of objects, width over height": plots.histogram(spreads.aspects, "width over height", log=True),
        "Shape of images, width over height": plots.histogram(spreads.image_aspects, "width over height", log=True),
    }
    return columns(*(f'<h3>{title}</h3><div class="plot">{svg}</div>' for title, svg in shown.items() if svg))


def _classes(facts: DatasetFacts) -> str:
    most = max([*facts.boxes_per_class.values(), 1])
    ordered = sorted(facts.boxes_per_class.items(), key=lambda item: -item[1])
    rows = [[escape(name), bar(count / most, "after"), number(count)] for name, count in ordered]
    return f'<div class="scroll">{table(["Class", "", "Objects"], rows, 1)}</div>'
