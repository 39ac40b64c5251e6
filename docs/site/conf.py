"""How Sphinx builds the documentation: `scripts/docs`. Its pages are docs/*.md; their order is in docs/index.md."""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

REPOSITORY = "https://github.com/deixis/deixis/blob/main/"

project = "deixis"
author = "the authors of deixis"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["site", "notebooks"]
html_theme = "furo"
html_title = "deixis"
html_show_sourcelink = False
myst_heading_anchors = 4
default_role = "code"  # docstrings are written for help(): `name` is code, not a cross-reference
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": "Sequence, Exception"}
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_use_rtype = False
_LINK = re.compile(r"(?<!!)\]\((\.\./[^)#\s]+)")


def link_to_repository(app: Sphinx, docname: str, content: list[str]) -> None:
    """Links to files outside docs/ lead to the repository; a file that is not there is a warning, so an error."""
    docs = app.srcdir.resolve()

    def replaced(link: re.Match[str]) -> str:
        target = ((docs / docname).parent / link[1]).resolve()
        if target.is_relative_to(docs):
            return link[0]
        if not target.exists():
            getLogger(__name__).warning("link to a file that is not there: %s", link[1], location=docname)
        return f"]({REPOSITORY}{target.relative_to(docs.parent).as_posix()}"

    content[0] = _LINK.sub(replaced, content[0])


def setup(app: Sphinx) -> None:
    app.connect("source-read", link_to_repository)
