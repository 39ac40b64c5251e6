"""Write the table of formats in docs/formats.md from the formats' own records: scripts/format_table"""

from __future__ import annotations

import sys
from pathlib import Path

from deixis.data.formats.record import Format, Holds
from deixis.data.formats.table import FORMATS

DOCS = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
START, END = "<!-- written by scripts/format_table -->", "<!-- end of the table -->"
HEADS = ("format", "read", "written", "boxes", "masks", "splits", "attributes kept", "lost in writing")
KEPT = {
    "areas": "areas",
    "crowds": "crowds",
    "image_ids": "image ids",
    "category_ids": "category ids",
    "absent": "negative classes per image",
    "not_exhaustive": "not-exhaustive classes per image",
    "all_names": "names without objects and their order",
    "own_names": "names per image",
    "captions": "captions",
    "scores": "scores",
    "model_version": "the model that found the objects",
}


def table() -> str:
    """The table, one row per format, in the order of their names."""
    rows = [HEADS, ("---",) * len(HEADS), *(row(FORMATS[name]) for name in sorted(FORMATS))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(format: Format) -> tuple[str, ...]:
    """What a format's record says of it."""
    holds, writes = format.holds, format.writes
    masks = {(True, True): "✓", (True, False): "read", (False, True): "written", (False, False): ""}
    return (
        f"`{format.name}`",
        "" if format.refused else "✓",
        "✓" if writes else "",
        "✓" if holds.boxes_beside_masks or not holds.masks else "✓, of a mask its bounds",
        masks["masks" in format.takes, writes and holds.masks],
        "✓" if format.write_parts else "read" if "split" in format.takes else "",
        ", ".join(words for field, words in KEPT.items() if getattr(holds, field)) if writes else "",
        lost(holds) if writes else "not written",
    )


def lost(holds: Holds) -> str:
    """What a written data set does not have."""
    words = [*(["masks"] if not holds.masks else []), *(w for field, w in KEPT.items() if not getattr(holds, field))]
    return ", ".join([*words, *(["`_` in names"] if not holds.underscores else [])])


def with_table(text: str) -> str:
    """The page with the table as it should be."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    assert after, f"{DOCS} has lost the lines around the table: {START} and {END}"
    return f"{before}{START}\n\n{table()}\n\n{END}{after}"


def main() -> int:
    """Write the page."""
    DOCS.write_text(with_table(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
