"""The progress bar: seen on a terminal only, and labelled with what happens."""

from __future__ import annotations

import io

import pytest

from deixis.console import Console
from deixis.progress_bar import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_quiet_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("training", 3, Console(soft_wrap=True)) as bar:
        for step in range(3):
            bar(step + 1, note="epoch 1/1  loss 1.000")
        bar.console.print("epoch 1/1  [AP] 0.5")
    assert capsys.readouterr() == ("epoch 1/1  [AP] 0.5\n", "")
    with ProgressBar("images") as bar:
        bar(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_bar_shows_its_label_the_count_and_a_note() -> None:
    terminal = Terminal()
    with ProgressBar("checking [red]a\x1b.json", console=Console(file=terminal, force_terminal=True, width=120)) as bar:
        bar(1, 4, note="loss 0.5")
        bar.one_more()
        bar.refresh()
    shown = terminal.getvalue()
    assert "checking [red]a\\u001b.json" in shown
    assert "2/4" in shown
    assert "loss 0.5" in shown


def test_a_quiet_console_shows_no_bar() -> None:
    terminal = Terminal()
    with ProgressBar("images", 2, Console(file=terminal, force_terminal=True, quiet=True)) as bar:
        bar(1)
    assert terminal.getvalue() == ""


def test_the_label_says_what_happens() -> None:
    bar = ProgressBar("training", 2)
    with bar.labelled("measuring before training"):
        assert bar.label == "measuring before training"
    assert bar.label == "training"
    with pytest.raises(KeyError), bar.labelled("evaluating"):
        raise KeyError
    assert bar.label == "training"
