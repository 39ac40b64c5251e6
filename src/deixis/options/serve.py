"""The options of `deixis serve`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from deixis.errors import OptionError
from deixis.options.checks import A_DETECTOR, require
from deixis.options.marks import RARE, AtLeast1, Positive, Range, Removed
from deixis.options.types import Options

LOOPBACK = ("127.0.0.1", "::1", "localhost")
TOKEN = "DEIXIS_TOKEN"


@dataclass(frozen=True)
class Listening(Options):
    """Address: where the server listens, and who may ask"""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own needs a token."""
    port: Annotated[int, Range(0, 65535)] = 8000
    """Port to listen on; 0 for a free one."""
    token: str = ""
    """Token that requests must have, and for which browsers ask as a password, with any user name; that of the
    environment variable DEIXIS_TOKEN if not given."""

    @property
    def bearer_token(self) -> str:
        """The token given, or the environment's; empty without either."""
        return self.token or os.environ.get(TOKEN, "")

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names by which requests may address the server; empty for any."""
        return LOOPBACK if self.host in LOOPBACK else ()

    def check(self) -> None:
        """Raises OptionError for the first invalid value, or an address that other machines reach without a token."""
        super().check()
        if self.host not in LOOPBACK and not self.bearer_token:
            raise OptionError(f"--host: {self.host!r} is open to other machines; give --token, or set {TOKEN}")


@dataclass(frozen=True)
class ServeOptions(Listening):
    """Serve models over HTTP: detect, segment, describe, annotate, track under /v1; documentation under /docs."""

    detector: tuple[str, ...] = ()
    """Detectors, each "builtin", a folder or a hub id, as NAME=FOLDER where a name of your own is wanted. The first is
    used where a request names none."""
    segmenter: tuple[str, ...] = ()
    """Segmenters, the same way."""
    max_megabytes: Positive = 20.0
    """Maximum size of a request."""
    max_megapixels: Positive = 50.0
    """Maximum size of an image."""
    max_batch: AtLeast1 = 8
    """Images per batch, of whichever requests ask the same."""
    max_waiting: AtLeast1 = 64
    """Requests that may wait; others are answered 503, with the time after which to ask again."""
    timeout: Positive = 60.0
    """Seconds after which a request is given up."""
    max_film_frames: AtLeast1 = 300
    """Maximum frames of a film in a request; jobs take films of any length."""
    folders: tuple[str, ...] = ()
    """Folders below which jobs may read pictures and films, as NAME=FOLDER where the last part is not its name; none
    if not given."""
    jobs_folder: Path | None = None
    """Folder that keeps jobs and their results; one of before goes on there. Without it they are gone with the
    server."""
    finish: Annotated[float, Range(0, 86400), RARE] = 60.0
    """Seconds that open requests, and then a running job, may take to end when the server is told to stop."""
    url_hosts: Annotated[tuple[str, ...], RARE] = ()
    """Hosts from which images may be fetched by URL, as in --url-hosts images.example.org pictures.local:8080."""
    label_studio: Annotated[str, RARE] = ""
    """Address of a Label Studio whose projects use this server as their model, as in http://localhost:8080; its files
    are fetched with the key in LABEL_STUDIO_API_KEY. The model's address is then that of this server with
    /label-studio."""
    playground: bool = True
    """The playground at /, where the extra `play` is installed."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU, if there is one, when not given."""

    REMOVED = MappingProxyType(
        {
            "batch_wait": Removed(0.005, "a request waits 5 ms for others of its kind"),
            "max_film_seconds": Removed(60.0, "--max-film-frames bounds a film"),
            "max_jobs": Removed(16, "it is 16"),
            "max_connections": Removed(1024, "it is 1024"),
            "head_timeout": Removed(10.0, "it is 10 seconds"),
        }
    )

    def check(self) -> None:
        """Raises OptionError for the first invalid value."""
        super().check()
        if not self.detector and not self.segmenter:
            raise OptionError(f"--detector or --segmenter is required, as in --detector {A_DETECTOR}")
        for flag in ("detector", "segmenter", "folders"):
            names = list(named_models(getattr(self, flag)))
            require(len(names) == len(getattr(self, flag)), flag, getattr(self, flag), "a name of its own for each")
        for place in named_models(self.folders).values():
            if not Path(place).is_dir():
                raise OptionError(f"--folders: {place!r} is no folder; give folders that exist")


def named_models(given: tuple[str, ...]) -> dict[str, str]:
    """Models by name: that before a `=`, or the last part of the folder or hub id.

    >>> named_models(("cars=runs/cars/teachers/grounding_dino", "IDEA-Research/grounding-dino-tiny"))
    {'cars': 'runs/cars/teachers/grounding_dino', 'grounding-dino-tiny': 'IDEA-Research/grounding-dino-tiny'}
    """
    found = {}
    for text in given:
        name, sign, place = text.partition("=")
        found[name if sign else text.rstrip("/").rpartition("/")[2]] = place if sign else text
    return found
