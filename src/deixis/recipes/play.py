"""The server with its page in the browser."""

from __future__ import annotations

from importlib.util import find_spec

from deixis.errors import OptionError
from deixis.options.play import PlayOptions
from deixis.recipes.serve import serve


def play(options: PlayOptions) -> None:
    """Serve models until the process is told to stop, with the playground at `/`.

    Raises:
        DeixisError: the extra is not installed; see also `serve`.
    """
    if find_spec("gradio") is None:
        raise OptionError("the playground needs gradio; pip install 'deixis[play]'")
    serve(options.serving)
