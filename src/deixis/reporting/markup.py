"""Small pieces of HTML. Arguments named `*_html` are put in as they are; all other text is escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from deixis.text import printable


def escape(text: object) -> str:
    """Any text as HTML text or attribute value; escapes stand for what is no character of a page.

    >>> escape("<b> & co")
    '&lt;b&gt; &amp; co'
    """
    return html.escape(printable(str(text)), quote=True)


def number(value: int) -> str:
    """A whole number with thin spaces between thousands.

    >>> number(1234567).replace("\\u202f", "_")
    '1_234_567'
    """
    return f"{value:,}".replace(",", "\u202f")


def bar(share: float, style: str) -> str:
    """A bar of the given share of its track, in [0, 1]; an empty one where the share is not a number."""
    width = 0.0 if math.isnan(share) else 100 * min(max(share, 0.0), 1.0)
    return f'<div class="bar"><i class="{style}" style="width:{width:.1f}%"></i></div>'


def table(head_html: Sequence[str], rows_html: Sequence[Sequence[str]], numbers: int) -> str:
    """A table whose last columns, so many as `numbers`, are numbers; a column of bars is wide."""
    first_number = len(head_html) - numbers
    head = "".join(
        f'<th class="number">{cell}</th>' if i >= first_number else f"<th>{cell}</th>"
        for i, cell in enumerate(head_html)
    )
    rows = "".join(
        f"<tr>{''.join(_cell(cell, i >= len(row) - numbers) for i, cell in enumerate(row))}</tr>" for row in rows_html
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(content_html: str, is_number: bool) -> str:
    style = "number" if is_number else "wide" if content_html.startswith('<div class="bar">') else ""
    return f'<td class="{style}">{content_html}</td>' if style else f"<td>{content_html}</td>"


def key_values(values: Mapping[str, str]) -> str:
    """A table of names and texts; a text of several lines, or a command, keeps its form."""
    rows = [
        [f'<span class="faint">{escape(name)}</span>', f"<pre>{escape(text)}</pre>" if _is_code(text) else escape(text)]
        for name, text in values.items()
    ]
    return table(["", ""], rows, 0).replace("<thead><tr><th></th><th></th></tr></thead>", "") if rows else ""


def _is_code(text: str) -> bool:
    return "\n" in text or " --" in text


def columns(*parts_html: str) -> str:
    """Parts beside each other where the page is wide enough."""
    shown = "".join(f"<div>{part}</div>" for part in parts_html if part)
    return f'<div class="columns">{shown}</div>' if shown else ""


def section(title: str, anchor: str, body_html: str) -> str:
    """A titled card."""
    return f'<section id="{escape(anchor)}"><h2>{escape(title)}</h2>{body_html}</section>'
