"""What was reviewed as annotations of another format."""

from __future__ import annotations

from pathlib import Path

from deixis.console import print_text
from deixis.data.formats.review.read import correction_line, read_review
from deixis.data.formats.writing import not_kept, write_dataset
from deixis.options.review.export import ReviewExportOptions


def export_review(options: ReviewExportOptions) -> Path:
    """Print what was corrected and what the format cannot hold; write. Returns what `read_dataset` reads again.

    Raises:
        DataError: no review, nothing reviewed, or the output cannot be written.
    """
    assert options.output is not None
    dataset = read_review(options.db, split=options.part)
    print_text(correction_line(options.db))
    for line in not_kept(dataset, options.to, options.masks) or ["nothing"]:
        print_text(f"lost in {options.to}: {line}")
    written = write_dataset(dataset, options.output, options.to, options.image_files, options.masks)
    print_text(f"wrote {len(dataset)} images to {options.output}; read them with --data {written}")
    return written
