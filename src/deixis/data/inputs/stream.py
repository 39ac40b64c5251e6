"""Video from an address, where the user names one: a network camera, a file or playlist on the web, a local camera.

Frames come in order and once. They are decoded by PyAV as they arrive; memory does not grow.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import av
import numpy as np
from jaxtyping import UInt8

from deixis.data.pixels.frames import VIDEO_SUFFIXES
from deixis.data.pixels.video_file import AV_ERRORS, require_size, upright
from deixis.errors import DataError
from deixis.text import one_line

Pixels = TypeVar("Pixels")

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "http", "https")
TIMEOUT_S = 10.0
"""Of a connection, and of each wait for the next frame."""
_PROTOCOLS = "rtsp,rtsps,rtp,srtp,rtmp,rtmps,srt,udp,tcp,tls,http,https,httpproxy,hls,crypto"
"""No files: a playlist from the web may not name those of this machine."""
_CAMERAS = {"linux": ("/dev/video{}", "v4l2"), "darwin": ("{}", "avfoundation")}


def is_stream(text: str) -> bool:
    """Whether a text is the address of a video, and not of an image.

    >>> [is_stream(text) for text in ("rtsp://10.0.0.7/gate", "camera:0", "https://example.org/a.mp4?x=1")]
    [True, True, True]
    >>> [is_stream(text) for text in ("https://example.org/a.jpg", "films/a.mp4", "camera.jpg")]
    [False, False, False]
    """
    if re.fullmatch(r"camera:\d+", text):
        return True
    scheme = re.match(r"([A-Za-z]+)://", text)
    if scheme is None or scheme[1].lower() not in SCHEMES:
        return False
    if not scheme[1].lower().startswith("http"):
        return True
    return PurePosixPath(urlsplit(text).path).suffix.lower() in VIDEO_SUFFIXES | {".m3u8"}


def without_secrets(address: str) -> str:
    """An address without user, password and query.

    >>> without_secrets("rtsp://user:password@10.0.0.7/gate?token=1")
    'rtsp://10.0.0.7/gate'
    """
    return re.sub(r"//[^/@]*@", "//", address).partition("?")[0]


def name_of(shown: str) -> str:
    """A file's name for an address.

    >>> [name_of(text) for text in ("https://example.org/yard 1.mp4", "rtsp://10.0.0.7:554/", "camera:0")]
    ['yard_1', '10_0_0_7', 'camera_0']
    """
    place = urlsplit(shown)
    last = PurePosixPath(place.path.rstrip("/")).stem if place.netloc else shown
    return re.sub(r"[^\w-]+", "_", last or place.hostname or "").strip("_") or "stream"


class Stream:
    """The frames of a video at an address: gone through once, each decoded when it is asked for.

    Attributes:
        shown: the address, `without_secrets`.
        rate: frames per second; 30 where the address does not say.

    Raises:
        DataError: no address of a video, it cannot be reached in time, or sends no video.
    """

    def __init__(self, address: str) -> None:
        self.shown = without_secrets(address)
        try:
            self._container = self._open(address)
        except AV_ERRORS as error:
            raise DataError(f"{self.shown}: cannot be opened ({_reason(error)}); check the address") from error
        if not self._container.streams.video:
            self._container.close()
            raise DataError(f"{self.shown}: has no video; check the address")
        self.rate = Fraction(self._container.streams.video[0].average_rate or 30)

    def _open(self, address: str) -> Any:
        if camera := re.fullmatch(r"camera:(\d+)", address):
            if sys.platform not in _CAMERAS:
                raise DataError(f"{address}: cameras are read on Linux and macOS; give the address of a stream")
            device, kind = _CAMERAS[sys.platform]
            return av.open(device.format(camera[1]), format=kind)
        if urlsplit(address).scheme.lower() not in SCHEMES:
            schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise DataError(f"{self.shown}: no address of a video; expected {schemes} or camera:0")
        options = {"protocol_whitelist": _PROTOCOLS}
        if address.lower().startswith("rtsp"):
            options["rtsp_transport"] = "tcp"  # lost packets of UDP leave grey smears, in which things are found
        return av.open(address, options=options, timeout=TIMEOUT_S)

    @property
    def name(self) -> str:
        """A name for files about it."""
        return name_of(self.shown)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Each frame, upright.

        Raises:
            DataError: the stream broke off.
        """
        count = 0
        with closing(self._container):
            try:
                for frame in self._container.decode(video=0):
                    if frame.is_corrupt:  # what was sent before the first key frame
                        continue
                    require_size(self.shown, frame.height, frame.width)
                    yield upright(frame)
                    count += 1
            except AV_ERRORS as error:
                raise DataError(f"{self.shown}: broke off after {count} frames ({_reason(error)})") from error
        if not count:
            raise DataError(f"{self.shown}: sent no frame; check the address")


def until_it_breaks(frames: Iterable[Pixels], warn: Callable[[str], None]) -> Iterator[Pixels]:
    """Frames as they come; a break after the first one ends them, and is a line for `warn`.

    Raises:
        DataError: no frame comes.
    """
    came = False
    try:
        for frame in frames:
            came = True
            yield frame
    except DataError as error:
        if not came:
            raise
        warn(one_line(error))


def _reason(error: Exception) -> str:
    """What went wrong, without the address, which may contain a password."""
    if isinstance(error, av.error.ExitError):  # how FFmpeg calls a time-out of ours
        return f"nothing came for {TIMEOUT_S:.0f} s"
    return str(getattr(error, "strerror", None) or type(error).__name__)
