"""The triage page in a real browser: every path by keyboard, two reviewers at once, a screen reader's view."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from small_reviews import small_review

from deixis.geometry.rle import bitmap_rle
from deixis.records import Rle

CHROMIUM = shutil.which("chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine; apt-get install chromium"),
]
WAIT_MS = 15_000


def square(pixels: np.ndarray, x: float, y: float) -> Rle:
    mask = np.zeros(pixels.shape[:2], bool)
    mask[int(y) - 3 : int(y) + 3, int(x) - 5 : int(x) + 5] = True
    return bitmap_rle(mask)


class Site:
    """The page of one review, served by a thread."""

    def __init__(self, folder: Path) -> None:
        from deixis.review.app import make_review_app
        from deixis.serving.door import Limits

        self.store = small_review(folder)
        app = make_review_app(self.store, Limits(hosts=("127.0.0.1",)), point_mask=square)
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        self.thread = Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        self.store.close()

    def states(self) -> list[tuple[str, str, str]]:
        """(label, status, annotator) of each object."""
        rows = self.store.rows("SELECT label, status, annotator FROM objects ORDER BY id")
        return [(row["label"], row["status"], row["annotator"]) for row in rows]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path)
    yield opened
    opened.close()


def reviewer(browser: Any, site: Site, name: str) -> Any:
    """A person's window, with the queue loaded; errors of its scripts fail the test."""
    page = browser.new_context(viewport={"width": 1200, "height": 800}).new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("pageerror", lambda error: pytest.fail(f"the page failed: {error}"))
    page.goto(site.url)
    page.get_by_label("You").fill(name)
    sync_api.expect(page.locator("#title")).to_contain_text("1 of 3", timeout=WAIT_MS)
    page.locator("#objects li[aria-selected=true]").wait_for()
    page.keyboard.press("Escape")
    return page


def says(page: Any, text: str) -> None:
    sync_api.expect(page.locator("#message")).to_contain_text(text, timeout=WAIT_MS)


def test_an_image_is_reviewed_by_keyboard_alone(browser: Any, site: Site) -> None:
    page = reviewer(browser, site, "ann")
    assert "2.png" in page.locator("#title").inner_text(), "model and labels disagree most about it"
    page.keyboard.press("3")  # the dog is a größe
    says(page, "now größe, saved")
    assert site.states()[1] == ("größe", "accepted", "ann")
    page.keyboard.press("j")
    page.keyboard.press("a")
    says(page, "cat: accepted, saved")
    page.keyboard.press("x")  # the next one is selected
    says(page, "cat: rejected, saved")
    assert [state[1] for state in site.states()[1:4]] == ["accepted", "accepted", "rejected"]
    page.keyboard.press("u")
    says(page, "Undone")
    assert site.states()[3] == ("cat", "open", "")
    page.keyboard.press("b")  # a box by arrow keys
    for key in ("ArrowLeft", "Shift+ArrowUp", "Alt+ArrowRight", "Enter"):
        page.keyboard.press(key)
    says(page, "added, saved")
    drawn = site.store.rows("SELECT * FROM objects WHERE origin = 'drawn'")
    assert [drawn[0][name] for name in ("x1", "y1", "x2", "y2")] == [24, 5, 35, 15]
    page.keyboard.press("e")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    says(page, "moved, saved")
    assert site.store.row("objects", drawn[0]["id"])["y1"] == 15
    page.keyboard.press("Delete")
    says(page, "deleted, saved")
    page.keyboard.press("r")
    page.keyboard.type("<img src=x onerror=alert(1)>")
    page.keyboard.press("Enter")
    says(page, "now <img src=x onerror=alert(1)>, saved")
    assert page.locator("#objects img").count() == 0, "a name is text"
    page.keyboard.press("f")
    sync_api.expect(page.locator("#title")).to_contain_text("2 of 3", timeout=WAIT_MS)
    assert site.store.row("images", 2)["status"] == "done"


def test_boxes_and_masks_by_mouse_and_zoom(browser: Any, site: Site) -> None:
    page = reviewer(browser, site, "ann")
    page.keyboard.press("n")
    sync_api.expect(page.locator("#title")).to_contain_text("3.png", timeout=WAIT_MS)
    before = page.locator("#picture").bounding_box()
    page.keyboard.press("+")
    place = page.locator("#picture").bounding_box()
    assert place["width"] == pytest.approx(1.25 * before["width"], rel=0.01)
    scale = place["width"] / 60
    page.keyboard.press("b")
    page.mouse.move(place["x"] + 20 * scale, place["y"] + 10 * scale)
    page.mouse.down()
    page.mouse.move(place["x"] + 40 * scale, place["y"] + 30 * scale, steps=4)
    page.mouse.up()
    says(page, "added, saved")
    drawn = site.store.rows("SELECT * FROM objects WHERE origin = 'drawn'")[-1]
    assert [drawn[name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx([20, 10, 40, 30], abs=0.2)
    page.keyboard.press("m")
    page.mouse.click(place["x"] + 30 * scale, place["y"] + 20 * scale)
    says(page, "mask added, saved")
    assert page.locator("#boxes polygon").count() == 1


def test_two_reviewers_at_once_see_each_other_and_overwrite_nothing(browser: Any, site: Site) -> None:
    ann, bob = reviewer(browser, site, "ann"), reviewer(browser, site, "bob")
    bob.route("**/api/changes*", lambda route: route.abort())  # bob's page has not heard of it
    ann.keyboard.press("a")
    says(ann, "accepted, saved")
    bob.keyboard.press("x")
    says(bob, "ann changed this meanwhile; look again")
    assert site.states()[1] == ("<b>dog</b>", "accepted", "ann")
    sync_api.expect(bob.locator("#objects li").first).to_contain_text("accepted by ann", timeout=WAIT_MS)
    bob.keyboard.press("x")
    says(bob, "rejected, saved")
    sync_api.expect(ann.locator("#objects li").first).to_contain_text("rejected by bob", timeout=WAIT_MS)


def test_the_grid_judges_many_objects_and_filters(browser: Any, site: Site) -> None:
    page = reviewer(browser, site, "ann")
    page.keyboard.press("g")
    sync_api.expect(page.locator("#total")).to_have_text("Objects 1 to 5 of 5", timeout=WAIT_MS)
    page.keyboard.press("a")
    says(page, "accepted, saved")
    page.keyboard.press("x")
    says(page, "rejected, saved")
    assert sorted(state[1] for state in site.states()) == ["accepted", "open", "open", "open", "rejected"]
    page.get_by_label("Score from").fill("0.75")
    page.get_by_label("Score from").press("Tab")
    sync_api.expect(page.locator("#total")).to_contain_text("of 2", timeout=WAIT_MS)
    page.get_by_label("Status").select_option("done")
    sync_api.expect(page.locator("#title")).to_contain_text("", timeout=WAIT_MS)
    sync_api.expect(page.locator("#total")).not_to_contain_text("of 2", timeout=WAIT_MS)


def test_a_page_that_dies_loses_nothing(browser: Any, site: Site) -> None:
    page = reviewer(browser, site, "ann")
    page.keyboard.press("x")
    says(page, "rejected, saved")
    page.context.close()
    again = reviewer(browser, site, "ann")
    sync_api.expect(again.locator("#objects li").first).to_contain_text("rejected by ann", timeout=WAIT_MS)


def test_a_name_is_asked_for_before_anything_is_saved(browser: Any, site: Site) -> None:
    page = reviewer(browser, site, "")
    page.keyboard.press("a")
    says(page, "Write your name first")
    assert page.evaluate("document.activeElement.id") == "annotator"
    assert site.store.rows("SELECT * FROM actions") == []


def test_the_page_is_accessible(browser: Any, site: Site) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = reviewer(browser, site, "ann")
    page.keyboard.press("?")
    for key in ("a", "g"):
        page.keyboard.press(key)
        says(page, "accepted, saved") if key == "a" else page.locator("#crops li").first.wait_for()
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
