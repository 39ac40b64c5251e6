"""A real Label Studio on loopback with SQLite, from an environment of its own: it requires another OpenCV than deixis.

python -m venv label-studio && label-studio/bin/pip install label-studio
DEIXIS_LABEL_STUDIO=label-studio/bin/label-studio scripts/test --all tests/unit/review/test_review_in_label_studio.py
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

COMMAND = os.environ.get("DEIXIS_LABEL_STUDIO", "")
WHY_NOT = "needs a Label Studio; set DEIXIS_LABEL_STUDIO to its command"
USER, PASSWORD = "someone@example.org", "open sesame"
_START_S = 900


@contextmanager
def label_studio(folder: Path) -> Iterator[tuple[str, str]]:
    """A server whose files are in a folder: its address, and a personal access token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}"
    flags = ["--no-browser", "--port", str(port), "--username", USER, "--password", PASSWORD]
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    own = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "HOME": str(folder),
        "COLLECT_ANALYTICS": "false",
        # by default it takes no model on its own machine, nor tells it of events
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
    }
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen([COMMAND, "start", *flags], env=kept | own, cwd=folder, stdout=log, stderr=log)
    try:
        yield url, _token(url, process, folder / "log.txt")
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def _token(url: str, process: subprocess.Popen[bytes], log: Path) -> str:
    """Log in as a person does, and make a personal access token."""
    jar = CookieJar()
    browser = build_opener(HTTPCookieProcessor(jar))
    until = time.monotonic() + _START_S
    while True:
        try:
            page = browser.open(f"{url}/user/login/", timeout=30).read().decode()
            break
        except (URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.5)
    hidden = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[0]
    form = urlencode({"csrfmiddlewaretoken": hidden, "email": USER, "password": PASSWORD}).encode()
    browser.open(Request(f"{url}/user/login/", form, {"Referer": f"{url}/user/login/"}), timeout=60).read()
    return _made(browser, url, next(one.value or "" for one in jar if one.name == "csrftoken"))


def _made(browser: OpenerDirector, url: str, csrf: str) -> str:
    headers = {"X-CSRFToken": csrf, "Referer": url, "Content-Type": "application/json"}
    answer = browser.open(Request(f"{url}/api/token/", b"{}", headers), timeout=60).read().decode()
    return re.findall(r'"token":\s*"([^"]+)"', answer)[0]
