"""The playground in a headless browser: one server with the built-in models, each path of the page.

DEIXIS_PICTURES=FOLDER keeps pictures of the page there, for docs/images.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the playground is an extra; pip install 'deixis[play]'")
pytest.importorskip("playwright", reason="the browser is driven by playwright; pip install it")
import uvicorn
from clip_miniatures import video
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from playwright.sync_api import sync_playwright

from deixis.data.pixels.images import load
from deixis.data.scenes.from_text import read_scenes
from deixis.inference.detect.detector import load_detector
from deixis.inference.refer.segmenter import load_segmenter
from deixis.serving.app import make_app
from deixis.serving.door import Limits
from deixis.serving.models import Models
from deixis.serving.playground.mounting import mount_playground

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed; on Debian: apt-get install chromium"),
]

PIXELS = np.asarray(load(read_scenes("scenes:split=demo_train,count=1,seed=5")[0]).image)
WAIT_MS = int(os.environ.get("DEIXIS_WAIT_MS", "180000"))  # the machine may be busy
SCRIPT = "<img src=x onerror=alert(1)>"
PHONE = {"width": 390, "height": 800}


@dataclass
class Server:
    """The server, and how often a model was asked."""

    url: str = ""
    asked: int = 0
    folder: Path = field(default_factory=Path)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM)


@pytest.fixture(scope="module")
def server(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Ends before the browser does, whose pages are then still open."""
    detector = load_detector("builtin", "cpu")
    models = Models({"before": detector, "after": detector}, {"builtin": load_segmenter("builtin", "cpu")})
    app = make_app(models, Limits(hosts=("127.0.0.1",)), timeout_s=WAIT_MS / 1000)
    served = Server(folder=tmp_path_factory.mktemp("files"))
    call = app.state.serving.batches.call

    def counted(work: Any, **more: Any) -> Any:
        served.asked += 1
        return call(work, **more)

    app.state.serving.batches.call = counted
    uvicorn_server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="error"))
    places = {"detectors": {"before": "builtin", "after": "builtin"}, "segmenters": {"builtin": "builtin"}}
    mount_playground(app, **places, url="http://here", max_bytes=10**7, stopping=lambda: uvicorn_server.should_exit)
    thread = threading.Thread(target=uvicorn_server.run, daemon=True)
    thread.start()
    while not uvicorn_server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    served.url = f"http://127.0.0.1:{uvicorn_server.servers[0].sockets[0].getsockname()[1]}"
    Image.fromarray(PIXELS).save(served.folder / "scene.png")
    yield served
    uvicorn_server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def page(chromium: Any, server: Server) -> Iterator[Any]:
    """A page that fails where a script of a name runs, or something from elsewhere is asked for."""
    tab = chromium.new_page(viewport={"width": 1100, "height": 900})
    tab.set_default_timeout(WAIT_MS)
    wrong: list[str] = []
    tab.on("dialog", lambda dialog: (wrong.append(f"a script ran: {dialog.message}"), dialog.dismiss()))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: wrong.append(request.url) if _is_outside(request.url, server.url) else None)
    tab.goto(server.url)
    tab.wait_for_selector("#find")
    yield tab
    assert wrong == []


def _is_outside(url: str, own: str) -> bool:
    return not url.startswith((own, "data:", "blob:"))


def give(page: Any, file: Any) -> None:
    """Another file in place of what is there."""
    clear = page.locator("#file button[aria-label='Clear']")
    if clear.count():
        clear.first.click()
        page.wait_for_selector("#picture0 img", state="detached")
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector("#picture0 img")


def find(page: Any, text: str, first: str, second: str = "none") -> None:
    page.fill("#typed textarea", text)
    for place, name in (("first", first), ("second", second)):
        page.click(f"#{place} input")
        page.locator("[role=option]", has_text=name).first.click()
    code = page.inner_text("#command")
    page.click("#find")
    page.wait_for_function(
        "(old) => { const now = document.querySelector('#command').innerText; return now != old && now.length > 20 }",
        arg=code,
    )


def set_slider(page: Any, name: str, value: float) -> None:
    """Move a slider and wait until the picture is another one."""
    source = page.get_attribute("#picture0 img", "src")
    page.fill(f"#{name} input[type=number]", f"{value:g}")
    page.press(f"#{name} input[type=number]", "Enter")
    page.wait_for_function("old => document.querySelector('#picture0 img').src != old", arg=source)


def rows(page: Any) -> list[list[str]]:
    lines = page.locator("#table tbody tr").all()
    return [[cell.strip() for cell in line.locator("td").all_inner_texts()] for line in lines]


def wait_for_row(page: Any, text: str) -> None:
    page.locator("#table tbody td", has_text=text).first.wait_for()


def click_into_picture(page: Any, x_share: float, y_share: float) -> None:
    """Click until the table has a row of it: Gradio drops clicks into an image that it is still loading."""
    picture, loaded = page.locator("#picture0 img"), "() => document.querySelector('#picture0 img')?.complete"
    for _ in range(6):
        page.wait_for_function(loaded)
        box = picture.bounding_box()
        picture.click(position={"x": box["width"] * x_share, "y": box["height"] * y_share})
        try:
            return page.locator("#table tbody td", has_text="click 1").first.wait_for(timeout=WAIT_MS / 6)
        except PlaywrightTimeoutError:
            continue
    raise AssertionError(f"no click was answered: {page.inner_text('#said')!r}")


def keep(page: Any, name: str) -> None:
    folder = os.environ.get("DEIXIS_PICTURES")
    if folder:
        page.wait_for_timeout(1000)
        page.screenshot(path=f"{folder}/{name}.png")


def test_boxes_follow_the_threshold_and_no_model_runs(page: Any, server: Server) -> None:
    page.click("#find")
    page.locator("#said", has_text="drop a picture or a film first").wait_for()
    give(page, str(server.folder / "scene.png"))
    find(page, "red circle, blue square", "before")
    wait_for_row(page, "red circle")
    detector = load_detector("builtin", "cpu")
    asked, seen = server.asked, []
    for threshold in (0.1, 0.45):
        set_slider(page, "threshold", threshold)
        (direct,) = detector.predict([PIXELS], ["red circle", "blue square"], threshold)
        page.wait_for_function("n => document.querySelectorAll('#table tbody tr').length == n", arg=len(direct))
        seen.append([row[0] for row in rows(page)])
        assert seen[-1] == direct.labels
        assert f"--threshold {threshold:g}" in page.inner_text("#command")
    assert len(seen[0]) > len(seen[1]) > 0
    assert server.asked == asked
    keep(page, "play")


def test_two_models_side_by_side_with_captions_and_coco(page: Any, server: Server) -> None:
    find(page, "red circle", "before", "after")
    page.wait_for_selector("#picture1 img")
    page.click("#describe")
    page.wait_for_function("[...document.querySelectorAll('#table tbody tr')].every(line => line.cells[3].innerText)")
    table = rows(page)
    assert {row[-1] for row in table} == {"before", "after"}
    assert all(row[3] for row in table)
    with page.expect_download() as download:
        page.click("#coco1")
    content = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert len(content["annotations"]) == sum(row[-1] == "after" for row in table)
    assert content["annotations"][0]["caption"] == table[-1][3]
    with page.expect_download() as picture:
        page.locator("#picture0 a[download]").first.click()
    with Image.open(picture.value.path()) as image:
        assert max(image.size) >= 480
    keep(page, "play_compare")


def test_phrases_clicks_and_names_that_contain_script(page: Any, server: Server) -> None:
    scene = (server.folder / "scene.png").read_bytes()
    give(page, {"name": f"{SCRIPT}.png", "mimeType": "image/png", "buffer": scene})
    find(page, f"the red circle\n{SCRIPT}", "builtin")
    wait_for_row(page, "the red circle")
    wait_for_row(page, SCRIPT)
    assert SCRIPT in page.inner_text("#python")
    click_into_picture(page, 1 / 2, 1 / 3)
    command = page.inner_text("#command")
    x, y = (float(command.split(f'"{axis}": ')[1].split(",")[0].split("}")[0]) for axis in "xy")
    assert (x, y) == pytest.approx((PIXELS.shape[1] / 2, PIXELS.shape[0] / 3), abs=2)
    assert page.locator("img[src=x]").count() == 0
    page.click("#first input")
    page.locator("[role=option]", has_text="before").first.click()
    page.click("#find")  # names have no '='
    page.locator("#said", has_text="has no '='").wait_for()


def test_a_film_has_a_slider_of_frames(page: Any, server: Server) -> None:
    half = PIXELS[:, ::-1].copy()
    film = video(server.folder / "film.mp4", np.stack([PIXELS, half, PIXELS]))
    give(page, str(film))
    page.wait_for_selector("#frame input[type=number]")
    find(page, "red circle", "before")
    wait_for_row(page, "red circle")
    asked = server.asked
    set_slider(page, "frame", 2)
    assert server.asked == asked
    assert "film.mp4" in page.inner_text("#python")


def test_it_fits_a_phone(page: Any) -> None:
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
    for name in ("find", "describe", "threshold", "picture0", "table", "python", "command"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= PHONE["width"], name
    keep(page, "play_phone")
