"""The notebooks of the docs run from their first cell to their last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def code(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_cells_are_python_and_hold_no_output(notebook: Path) -> None:
    assert len(code(notebook)) > 2
    for number, text in enumerate(code(notebook)):
        compile(text, f"{notebook.name}, code cell {number}", "exec")
    assert all(not cell.get("outputs") for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"])


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, text in enumerate(code(notebook)):
        exec(compile(text, f"{notebook.name}, code cell {number}", "exec"), names)
    shown = names["found"][0] if notebook.stem == "detector" else names["found"]  # type: ignore[index]
    assert "data:image/jpeg;base64," in shown._repr_html_()  # as a notebook shows it


def test_each_task_has_one() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["detector", "segmenter"]
