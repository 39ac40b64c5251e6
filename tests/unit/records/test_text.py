"""Text of users' files where it is printed, shown and written."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from deixis.atomic_files import write_atomic
from deixis.cli.main import main
from deixis.console import Console
from deixis.data.formats import read_dataset
from deixis.data.formats.table import WRITTEN
from deixis.reporting import page as pages
from deixis.text import clean_name, printable, whole_characters

NAMES = ["[red]x[/red]", "[/]", "\x1b]0;owned\x07bell", "\u202eevil", "a\ud800b", ":smile: <b>&\"'", "../../up", "=1+1"]
CLEAN = ["[red]x[/red]", "[/]", "]0;owned bell", "evil", "a\ufffdb", ":smile: <b>&\"'", "../../up", "=1+1"]
FILES = ["[bold]a.png", "\x1b[31mb.png", "caf\udce9.png", "d\u202egnp.png", "e\nf.png", "<script>.png"]


@pytest.fixture(scope="module")
def odd_names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO file whose classes and pictures have names that terminals, pages and file systems act on."""
    root = tmp_path_factory.mktemp("odd")
    images, annotations = [], []
    for number, name in enumerate(FILES, start=1):
        Image.fromarray(np.full((48, 64, 3), 30 * number, np.uint8)).save(root / name)
        images.append({"id": number, "file_name": name, "height": 48, "width": 64})
        for category in range(1, len(NAMES) + 1):
            row = {"image_id": number, "category_id": category, "bbox": [3 * category, 2, 9, 9], "area": 81}
            annotations.append({"id": len(annotations) + 1, **row})
    categories = [{"id": row, "name": name} for row, name in enumerate(NAMES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "labels.json").write_text(json.dumps(content))
    return root / "labels.json"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints; it must end well, and print nothing that a terminal acts on."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    text = printed.out + printed.err
    assert all(char.isprintable() or char == "\n" for char in text), text
    text.encode()
    return text


def test_names_are_clean_where_they_enter_and_stay_what_they_are_otherwise() -> None:
    assert list(map(clean_name, NAMES)) == CLEAN
    for name in ("größe", "🦝", "👩\u200d🚒", "a b", "क\u094dष"):
        assert clean_name(name) == printable(name) == whole_characters(name) == name


def test_a_console_prints_text_and_nothing_else() -> None:
    for width in (60, 12):
        console = Console(file=io.StringIO(), width=width, force_terminal=True)
        table = Table(*NAMES[:2], title="[bold]t[/bold]")
        table.add_row("[/]", "\x1b[2J:smile:")
        console.print(NAMES[0], NAMES[1], NAMES[2], markup=True)
        console.print(table)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "\x1b[2J" not in text
        assert "\x07" not in text
        if width == 60:
            for part in ("[red]x[/red] [/] \\u001b]0;owned\\u0007bell", "[bold]t[/bold]", "\\u001b[2J:smile:"):
                assert part in text


def test_pages_have_escapes_for_what_no_page_holds() -> None:
    page = pages.render_page(
        "seeds", title="<a>\x1b\udce9", warnings=["<b>"], figures=pages.Table(["\x1b"], [["<a>\udce9"]], 0)
    )
    assert "<h1>&lt;a&gt;\\u001b\\udce9</h1>" in page
    assert "<b>&lt;b&gt;</b>" in page
    assert "<th>\\u001b</th>" in page
    assert "<td>&lt;a&gt;\\udce9</td>" in page


def test_bytes_of_file_names_come_back_from_json(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.json", json.dumps({"file": "caf\udce9", "dog": "größe"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"file": "caf\udce9", "dog": "größe"}


@pytest.mark.parametrize("format", sorted(WRITTEN))
def test_sets_with_odd_names_are_written_and_read_again(
    format: str, odd_names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "data", "convert", "--data", odd_names, "--to", format, "--output", tmp_path / "out")
    written = [path.name for path in (tmp_path / "out").rglob("*")]
    assert all(clean_name(name) == name for name in written), written
    again = read_dataset(tmp_path / "out", format=format)
    assert set(again.vocabulary.names) == set(CLEAN)
    assert sum(len(again[index].instances) for index in range(len(again))) == len(FILES) * len(NAMES)


def test_commands_on_data_print_and_write_odd_names(
    odd_names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "caf\udce9[red].html"
    assert "[red]x[/red]" in run(capsys, "data", "stats", "--data", odd_names, "--output", page)
    assert "\x1b" not in page.read_text(encoding="utf-8")
    assert "<b>&\"'" not in page.read_text(encoding="utf-8")
    run(capsys, "data", "split", "--data", odd_names, "--output", tmp_path / "split")
    run(capsys, "data", "check", "--data", odd_names, "--fix", tmp_path / "fixed")
    json.loads(run(capsys, "data", "check", "--data", odd_names, "--json"))


def test_predictions_of_odd_files_and_names(
    odd_names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "\x1b[31mcaf\udce9"
    names = ["[red]x[/red]", "caf\udce9", "\x1b[2Jdog", "\u202ecat"]
    common = ("--images", odd_names.parent, "--threshold", 0.001, "--output", output)
    run(capsys, "detect", "predict", "--model", "builtin", *common, "--names", *names)
    found = json.loads((output / "predictions.json").read_text(encoding="utf-8"))
    assert "caf\udce9.png" in json.dumps(found, ensure_ascii=False)
    assert len(list((output / "pictures").iterdir())) == len(FILES)


def test_errors_are_one_printable_line_of_readable_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"images": [{"id": ["y" * 9_000]}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    for name in ("caf\udce9\x1b[31m[bold].json", "e\nf.json", "x" * 200 + ".json"):
        (tmp_path / name).write_text(json.dumps(content))
        with pytest.raises(SystemExit) as ended:
            main(["data", "stats", "--data", str(tmp_path / name)])
        assert ended.value.code == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        assert text.strip().isprintable()
        assert len(text) < 2_200
