"""HTML pages that need no other file, from the templates beside this module. Texts are escaped, unless `Markup`."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from deixis.atomic_files import write_atomic
from deixis.text import printable


@dataclass(frozen=True)
class Bars:
    """A cell of bars: (share of the cell's width in [0, 1], empty for NaN; style "before" or "after")."""

    shares: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Legend:
    """A heading over bars: (name, style)."""

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Change:
    """A cell with the change of a metric in percentage points, coloured by its sign; NaN for not measured."""

    before: float
    after: float


Cell = str | int | Bars | Change


@dataclass(frozen=True)
class Table:
    """A table of texts, whole numbers, `Bars` and `Change`s.

    Attributes:
        numbers: how many columns, counted from the right, are aligned as numbers.
        scroll: takes the page's whole width, in a frame that scrolls.
        sortable: a click on a heading sorts, on pages with the script of `explained.html`.
    """

    heads: Sequence[str | Legend]
    rows: Sequence[Sequence[Cell]]
    numbers: int
    title: str = ""
    scroll: bool = False
    sortable: bool = False


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a page as one file.

    Raises:
        DataError: the place cannot be written.
    """
    write_atomic(path, render_page(template, **values))


def render_page(template: str, **values: Any) -> str:
    """A page's HTML.

    Args:
        template: name of a file in `templates`, without its ending.
    """
    return _environment().get_template(f"{template}.html").render(**values)


def is_our_page(text: str) -> bool:
    """Whether a page was written by this package."""
    source, _, _ = _environment().loader.get_source(_environment(), "base.html")  # type: ignore[union-attr]
    return text.startswith(source.partition("{{")[0])  # all pages begin with the same lines


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("deixis.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,  # a misspelt name in a template fails, not shows nothing
        finalize=lambda value: printable(value) if type(value) is str else value,  # escapes for what no page holds
    )
    environment.filters |= {"number": number, "percent": percent, "width": _width, "change_from": _change}
    environment.filters["jpeg"] = jpeg_uri
    return environment


def number(value: int) -> str:
    """A whole number with thin spaces between thousands.

    >>> number(1234567).replace("\\u202f", "_")
    '1_234_567'
    """
    return f"{value:,}".replace(",", "\u202f")


def numbers(values: Sequence[int | str]) -> str:
    """Numbers and texts in one cell.

    >>> numbers([1, 20, "30×40"])
    '1 / 20 / 30×40'
    """
    return " / ".join(number(value) if isinstance(value, int) else value for value in values)


def percent(value: float) -> str:
    """A share in percent, a dash for NaN.

    >>> percent(0.4567), percent(math.nan)
    ('45.7', '–')
    """
    return f"{100 * value:.1f}" if math.isfinite(value) else "–"


def _width(share: float) -> str:
    return f"{0.0 if math.isnan(share) else 100 * min(max(share, 0.0), 1.0):.1f}%"


def _change(after: float, before: float) -> tuple[str, str]:
    """(text, style) of a change in percentage points."""
    points = round(100 * (after - before), 1) if math.isfinite(after - before) else math.nan
    if math.isnan(points):
        return "–", "faint"
    return f"{points:+.1f}", "up" if points > 0 else "down" if points < 0 else "faint"


def jpeg_uri(pixels: UInt8[np.ndarray, "h w 3"]) -> Markup:
    """A picture as the source of an <img>."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=85, optimize=True)
    return Markup("data:image/jpeg;base64,") + base64.b64encode(written.getvalue()).decode("ascii")
