"""An audit: a random sample is judged, precision per class comes with an interval, bands of score are proposed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from deixis.atomic_files import write_atomic
from deixis.console import Console, print_text
from deixis.errors import DataError
from deixis.options.review.audit import ReviewAuditOptions
from deixis.review.audit import LEVEL, Bands, Precision, bands_of, draw_sample, judged_sample, precision_of
from deixis.review.store import Store

ALL = "all classes"


def audit_review(options: ReviewAuditOptions) -> dict[str, Any]:
    """Draw a sample where asked; else print what the judged sample says. Returns the figures by class.

    Raises:
        DataError: no review, or nothing of a sample is judged yet.
    """
    with Store(Path(options.db)) as store:
        if options.draw is not None:
            drawn = draw_sample(store, options.draw, options.seed)
            print_text(
                f"drew {drawn} objects; judge them: deixis review serve {options.db}, grid of crops, status any, "
                f"audit sample only; then: deixis review audit {options.db}"
            )
            return {}
        judged, still_open = judged_sample(store)
    if not judged:
        raise DataError(f"{options.db}: no object of a sample is judged; --draw 100 draws one, the page shows it")
    classes = {ALL: judged, **{name: [] for name in sorted({one.label for one in judged})}}
    for one in judged:
        classes[one.label].append(one)
    found = {
        name: (precision_of(rows), bands_of(rows, options.accept, options.reject)) for name, rows in classes.items()
    }
    _print(found, still_open)
    figures = {name: _plain(*each) for name, each in found.items()}
    if options.output is not None:
        write_atomic(options.output, json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    return figures


def _print(found: Mapping[str, tuple[Precision, Bands]], still_open: int) -> None:
    judged = found[ALL][0].judged
    table = Table(title=f"{judged} objects judged, {still_open} of the sample still open")
    for name in ("class", "right", "precision", f"{LEVEL:.0%} interval", "accept from", "review from"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for name, (precision, bands) in found.items():
        table.add_row(
            name,
            f"{precision.right} of {precision.judged}",
            f"{100 * precision.value:.1f} %",
            f"{100 * precision.low:.1f} to {100 * precision.high:.1f} %",
            "-" if math.isnan(bands.accept) else f"{bands.accept:.2f}",
            f"{bands.reject:.2f}",
        )
    Console(highlight=False).print(table)
    print_text("Objects that score at least 'accept from' may be accepted unseen, those below 'review from' rejected.")


def _plain(precision: Precision, bands: Bands) -> dict[str, Any]:
    return {
        "right": precision.right,
        "judged": precision.judged,
        "precision": precision.value,
        "interval": [precision.low, precision.high],
        "accept_from": None if math.isnan(bands.accept) else bands.accept,
        "review_from": bands.reject,
    }
