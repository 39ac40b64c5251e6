"""The options of `deixis play`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from deixis.options.marks import Positive, Range
from deixis.options.serve import Listening, ServeOptions


@dataclass(frozen=True)
class PlayOptions(Listening):
    """Try models in the browser: pictures and films, names, phrases and clicks, two models side by side."""

    detector: tuple[str, ...] = ()
    """Detectors, each "builtin", a folder or a hub id, as NAME=FOLDER where a name of your own is wanted. The built-in
    models if neither detector nor segmenter is given."""
    segmenter: tuple[str, ...] = ()
    """Segmenters, the same way; needed for phrases, clicks and captions."""
    port: Annotated[int, Range(0, 65535)] = 7860
    max_megabytes: Positive = 200.0
    """Maximum size of a picture or film."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""

    @property
    def serving(self) -> ServeOptions:
        """The same for the server."""
        builtin = () if self.detector or self.segmenter else ("builtin",)
        return ServeOptions(
            detector=self.detector or builtin,
            segmenter=self.segmenter or builtin,
            host=self.host,
            port=self.port,
            token=self.token,
            max_megabytes=self.max_megabytes,
            device=self.device,
        )

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        self.serving.check()
