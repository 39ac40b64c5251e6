"""The documentation has a place for every page, and the reference every public name; what is broken fails the build."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deixis

DOCS = Path(__file__).parents[2] / "docs"
needs_sphinx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")),
    reason="pip install 'deixis[docs]' to build the documentation",
)


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(DOCS / "site")]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_public_name_is_in_the_reference() -> None:
    listed = re.findall(r"^\.\. auto\w+:: (\w+)$", (DOCS / "api.rst").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(set(deixis.__all__) - {"__version__"})


def test_every_page_has_one_place() -> None:
    trees = re.findall(r"```\{toctree\}\n:caption: .+\n([^`]+)```", (DOCS / "index.md").read_text())
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in (*DOCS.rglob("*.md"), *DOCS.glob("*.rst"))}
    assert sorted(" ".join(trees).split()) == sorted(pages - {"index"}), "docs/index.md lists the pages"


@needs_sphinx
def test_what_is_broken_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    (source / "index.md").write_text(
        "# Title\n\n[a](nowhere.md) [b](#no-heading) [c](../none.py)\n\n![d](none.png)\n\n```{toctree}\napi\n```\n"
    )
    (source / "api.rst").write_text("API\n===\n\n.. autofunction:: deixis.load_nothing\n")
    (source / "stray.md").write_text("# Without a place\n")
    done = build(source, tmp_path / "site")
    assert done.returncode == 1
    for broken in ("nowhere.md", "no-heading", "../none.py", "none.png", "load_nothing", "stray.md"):
        assert broken in done.stderr


@needs_sphinx
@pytest.mark.slow
def test_it_builds(tmp_path: Path) -> None:
    done = build(DOCS, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site/api.html").read_text()
    assert 'id="deixis.Detections.with_nms"' in page
