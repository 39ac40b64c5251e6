"""The console of the commands: what it prints is text, whatever users' files hold."""

from __future__ import annotations

import sys
from typing import Any

import rich.console
from rich.text import Text

from deixis.text import printable


class Console(rich.console.Console):
    """rich's console, for which no text is markup or an emoji code, and no text acts on the terminal.

    Cells of tables, titles and lines all come through `render_str`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich's, of the text made printable."""
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})


def print_text(text: str, to_stderr: bool = False) -> None:
    """Print a text as it is, for whoever reads it in a pipe; escapes stand for what a terminal would act on."""
    print(printable(text), file=sys.stderr if to_stderr else sys.stdout)
