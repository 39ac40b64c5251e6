"""Images of Label Studio's tasks: its own files, asked for with a key, and URLs of allowed hosts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from deixis.data.inputs.download import download
from deixis.errors import DataError
from deixis.serving.images import decoded_base64


@dataclass(frozen=True)
class LabelStudio:
    """A Label Studio whose files are fetched.

    Attributes:
        url: its address, as the operator gave it; what a request says of it is not believed.
        key: a legacy token, or a personal access token; empty where none is needed.
    """

    url: str = ""
    key: str = ""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Of its own address."""
        return (urlsplit(self.url).netloc,)

    def headers(self) -> dict[str, str]:
        """The authorization of its files. A personal access token buys an access token for some minutes.

        Raises:
            DataError: it does not give one.
        """
        if not self.key:
            return {}
        # A personal access token is a JSON Web Token, of three parts; a legacy token is one word.
        if self.key.count(".") != 2:
            return {"Authorization": f"Token {self.key}"}
        asked = json.dumps({"refresh": self.key}).encode()
        url = f"{self.url.rstrip('/')}/api/token/refresh/"
        answer = download(url, hosts=self.hosts, headers={"Content-Type": "application/json"}, body=asked)
        try:
            return {"Authorization": f"Bearer {json.loads(answer)['access']}"}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{url}: gives no access token; check LABEL_STUDIO_API_KEY") from error


def image_content(value: str, studio: LabelStudio, headers: dict[str, str], url_hosts: Sequence[str]) -> bytes:
    """The content of a task's image file.

    Args:
        value: a path of Label Studio, a URL, or a data URL.
        headers: `studio.headers()`, which only its own files are asked with.

    Raises:
        DataError: it is of another place, or cannot be fetched.
    """
    if value.startswith("data:image/"):
        return decoded_base64("image", value)
    base = studio.url.rstrip("/")
    # "//host/a.jpg" would be an address of another host.
    if value.startswith("/") and not value.startswith("//"):
        if not base:
            raise DataError("image: is a file of Label Studio; start the server with --label-studio URL")
        return download(base + value, hosts=studio.hosts, headers=headers)
    if base and value.startswith(f"{base}/"):
        return download(value, hosts=studio.hosts, headers=headers)
    if not value.startswith(("http://", "https://")):
        raise DataError(f"image: {value[:100]!r} is not read; give URLs or files of Label Studio")
    return download(value, hosts=url_hosts)
