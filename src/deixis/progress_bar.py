"""The bar that shows how far work has come; it has counts and a label, and knows nothing of the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deixis.console import Console
from deixis.text import printable


class ProgressBar(Progress):
    """One bar on a terminal, gone when its block ends; nothing where the output is not a terminal.

    Args:
        label: what is counted or done ("images", "training").
        total: None until the first call gives it.
        console: stderr by default.
    """

    def __init__(self, label: str, total: int | None = None, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        text = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[note]"))
        label_column, note_column = text
        columns = (label_column, BarColumn(), MofNCompleteColumn(), note_column, TimeRemainingColumn())
        disable = console.quiet or not console.is_terminal
        super().__init__(*columns, console=console, disable=disable, transient=True)
        self._bar = self.add_task(printable(label), total=total, note="")

    def stop(self) -> None:
        """Nothing where nothing was shown: rich before 14 prints an empty line there."""
        if not self.disable:
            super().stop()

    @property
    def label(self) -> str:
        """What the bar shows at its left."""
        return self.tasks[0].description

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Set how much is done, of how much where that is not known yet."""
        self.update(self._bar, completed=done, total=total, note=printable(note))

    def one_more(self) -> None:
        """Count one more as done."""
        self.advance(self._bar)

    @contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """Another label inside the block."""
        before = self.label
        self.update(self._bar, description=printable(label))
        try:
            yield
        finally:
            self.update(self._bar, description=before)
