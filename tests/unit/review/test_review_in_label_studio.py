"""A real Label Studio: a round trip of a review, deixis as its model, and its page in a browser.

DEIXIS_PICTURES=FOLDER keeps a picture of the page there, for docs/images.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_label_studio as real

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from pycocotools import mask as coco_mask
from small_reviews import small_review
from small_segmenters import tiny_segmenter
from stand_in_server import Server, answering

from deixis.data.formats import read_dataset
from deixis.data.formats.label_studio.regions import objects_of
from deixis.data.inputs.download import download
from deixis.geometry.rle import bitmap_rle
from deixis.inference.refer.prompted_masks import PromptedMask, PromptedMasks
from deixis.inference.refer.segmenter import Segmenter
from deixis.options.review.push import ReviewPullOptions, ReviewPushOptions
from deixis.recipes.review.studio import pull_review, push_review
from deixis.review import actions
from deixis.review.build import build_review
from deixis.review.corrected import label_config
from deixis.review.pictures import Pictures
from deixis.review.store import Store
from deixis.review.studio import Studio
from deixis.serving.door import Limits
from deixis.serving.labelling.label_studio import add_label_studio
from deixis.serving.labelling.task_images import LabelStudio

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not real.COMMAND, reason=real.WHY_NOT)]
CHROMIUM = shutil.which("chromium")
WAIT_MS = int(os.environ.get("DEIXIS_WAIT_MS", "180000"))  # the machine may be busy
MASK = np.zeros((40, 60), np.uint8)
MASK[10:30, 15:45] = 1


def asked(studio: LabelStudio, path: str, values: Any = None) -> Any:
    body = None if values is None else json.dumps(values).encode()
    headers = {**studio.headers(), "Content-Type": "application/json"}
    return json.loads(download(studio.url + path, hosts=studio.hosts, headers=headers, body=body))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    with real.label_studio(tmp_path_factory.mktemp("studio")) as (url, key):
        yield LabelStudio(url, key)


def test_what_a_person_submits_there_comes_back(studio: LabelStudio, tmp_path: Path) -> None:
    with small_review(tmp_path) as store:
        file = store.file
        mask = {"size": [40, 60], "counts": [405, 10, 30, 10, 1945]}
        actions.add_object(store, 1, "größe", annotator="ann", mask=mask)
    push_review(ReviewPushOptions(data=str(file), url=studio.url, key=studio.key))
    with Store(file) as store:
        project = store.fact("project")
    for task in asked(studio, f"/api/projects/{project}/tasks/"):
        picture = download(studio.url + task["data"]["image"], hosts=studio.hosts, headers=studio.headers())
        assert picture.startswith(b"\xff\xd8"), "the picture is there"
        (prediction,) = asked(studio, f"/api/predictions/?task={task['id']}")
        assert prediction["model_version"] == "runs/a"
        result = prediction["result"]
        if task["data"]["deixis_image"] == 2:
            result[0]["value"]["rectanglelabels"] = ["größe"]
            result[1]["value"]["x"] += 10
            result.pop()
        asked(studio, f"/api/tasks/{task['id']}/annotations/", {"result": result})
    assert pull_review(ReviewPullOptions(db=str(file), url=studio.url, key=studio.key)) == [file]
    with Store(file) as store:
        rows = store.rows("SELECT * FROM objects ORDER BY id")
    assert [(row["label"], row["status"]) for row in rows] == [
        ("cat", "accepted"),
        ("größe", "accepted"),
        ("cat", "accepted"),
        ("cat", "rejected"),
        ("cat", "accepted"),
        ("größe", "accepted"),
    ]
    assert rows[2]["x1"] == pytest.approx(36, abs=0.01), "moved by a tenth of 60 pixels"
    assert rows[5]["mask"] is not None
    assert {row["annotator"] for row in rows[:5]} == {real.USER}


@pytest.fixture
def model(studio: LabelStudio, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[Any]]]:
    """deixis beside Label Studio: its address as a model, and the prompts of SAM 2, which marks a rectangle."""
    prompts: list[Any] = []

    def at_clicks(self: Any, pixels: Any, points: Any, inside: Any, box: Any = None) -> PromptedMask:
        prompts.append((pixels.shape[:2], points.tolist(), inside.tolist()))
        return PromptedMask(bitmap_rle(MASK), "clicks", 0.9)

    def in_boxes(self: Any, pixels: Any, boxes: Any, names: Any) -> list[PromptedMask]:
        prompts.append((pixels.shape[:2], boxes.tolist()))
        return [PromptedMask(bitmap_rle(MASK), "box", 0.9)]

    monkeypatch.setattr(PromptedMasks, "at_clicks", at_clicks)
    monkeypatch.setattr(PromptedMasks, "in_boxes", in_boxes)
    server = Server(Limits(hosts=("127.0.0.1",)), mounts=[lambda app: add_label_studio(app, studio)])
    server.app.state.serving.models.segmenters["masks"] = Segmenter(tiny_segmenter())
    with answering(server.app) as url:
        yield f"{url}/label-studio", prompts


def project_of_one(studio: LabelStudio, model: str, folder: Path) -> int:
    """A project with one picture of 60 x 40 pixels, and deixis as its model."""
    with small_review(folder) as store:
        first = Pictures(store.file.parent).jpeg(store.row("images", 1))
    project = Studio(studio).new_project("no predictions yet", label_config(["cat", "dog"]))
    place = Studio(studio).upload(project, "1.jpg", first)
    Studio(studio).add_tasks(project, [{"data": {"image": place}}])
    Studio(studio).add_backend(project, model)
    return project


def test_deixis_is_its_model(studio: LabelStudio, model: tuple[str, list[Any]], tmp_path: Path) -> None:
    project = project_of_one(studio, model[0], tmp_path)
    (backend,) = asked(studio, f"/api/ml/?project={project}")
    assert (backend["state"], backend["is_interactive"], backend["model_version"]) == ("CO", True, "cats+masks")
    (task,) = asked(studio, f"/api/projects/{project}/tasks/")
    (prediction,) = asked(studio, f"/api/tasks/{task['id']}/")["predictions"]
    assert prediction["model_version"] == "cats+masks"
    found = [(one["type"], one["value"]["rectanglelabels"], one["value"]["width"]) for one in prediction["result"]]
    assert found == [("rectanglelabels", ["cat"], 50), ("rectanglelabels", ["dog"], 50)], "as the stand-in finds them"
    head = {"original_width": 60, "original_height": 40, "image_rotation": 0, "to_name": "image", "from_name": "click"}
    point = {"x": 50, "y": 25, "width": 0.3, "keypointlabels": ["dog"]}
    box = {"x": 25, "y": 25, "width": 50, "height": 50, "rectanglelabels": ["dog"]}
    for region, seen in (
        ({"type": "keypointlabels", "is_positive": True, "value": point}, ((40, 60), [[30, 10]], [True])),
        ({"type": "rectanglelabels", "value": box}, ((40, 60), [[15, 10, 45, 30]])),
    ):
        context = {"result": [{**head, **region}]}
        answer = asked(
            studio, f"/api/ml/{backend['id']}/interactive-annotating", {"task": task["id"], "context": context}
        )
        (brush,) = answer["data"]["result"]
        assert (brush["type"], brush["from_name"], brush["value"]["brushlabels"]) == ("brushlabels", "brush", ["dog"])
        (back,) = objects_of(brush["value"], (40, 60), True, None)
        assert coco_mask.decode(back.mask_rle).tolist() == MASK.tolist()
        assert model[1].pop() == seen


@pytest.fixture
def labelling(studio: LabelStudio) -> Iterator[Callable[[int], Any]]:
    """From a project to its first picture in Label Studio's page, logged in."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine; apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    sync_api.expect.set_options(timeout=WAIT_MS)
    with sync_api.sync_playwright() as driver:
        page = driver.chromium.launch(executable_path=CHROMIUM).new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{studio.url}/user/login/")
        page.fill("input[name=email]", real.USER)
        page.fill("input[name=password]", real.PASSWORD)
        page.click("button[type=submit]")

        def opened(project: int) -> Any:
            page.goto(f"{studio.url}/projects/{project}/data/?labeling=1")
            page.get_by_test_id("bottombar-submit-button").wait_for()
            return page

        yield opened


def remove_last(page: Any) -> None:
    regions = page.locator(".lsf-outliner-item")
    before = regions.count()
    regions.last.click()
    page.keyboard.press("Backspace")
    has_regions(page, before - 1)


def has_regions(page: Any, count: int) -> None:
    from playwright.sync_api import expect

    expect(page.locator(".lsf-outliner-item")).to_have_count(count)


def submit(page: Any) -> None:
    with page.expect_response(lambda answer: answer.request.method == "POST" and "/annotations" in answer.url):
        page.get_by_test_id("bottombar-submit-button").click()


def test_a_person_corrects_in_its_page(studio: LabelStudio, labelling: Callable[[int], Any], tmp_path: Path) -> None:
    scenes = read_dataset("scenes:split=demo_train,count=1,seed=5")
    build_review(tmp_path / "review.db", scenes, source="scenes").close()
    file = tmp_path / "review.db"
    push_review(ReviewPushOptions(data=str(file), url=studio.url, key=studio.key))
    with Store(file) as store:
        project, objects = store.fact("project"), store.rows("SELECT * FROM objects ORDER BY id")
    page = labelling(project)
    has_regions(page, len(objects))
    keep(page)
    remove_last(page)
    submit(page)
    assert pull_review(ReviewPullOptions(db=str(file), url=studio.url, key=studio.key)) == [file]
    with Store(file) as store:
        rows = store.rows("SELECT * FROM objects ORDER BY id")
        assert store.row("images", 1)["status"] == "done"
    assert sorted(row["status"] for row in rows) == [*["accepted"] * (len(objects) - 1), "rejected"]
    assert {row["annotator"] for row in rows} == {real.USER}


def test_a_click_in_its_page_becomes_a_brush(
    studio: LabelStudio, model: tuple[str, list[Any]], labelling: Callable[[int], Any], tmp_path: Path
) -> None:
    """The smart tool asks deixis, the page shows its brush as a suggestion; accepted, it is submitted as it came."""
    project = project_of_one(studio, model[0], tmp_path)
    page = labelling(project)
    has_regions(page, 2)
    for _ in range(2):  # a click on a region would select it
        remove_last(page)
    page.get_by_test_id("bottombar-auto-annotation-toggle").click(force=True)
    page.locator(".lsf-labels_inline").last.get_by_text("dog").click()  # the labels of `click`
    page.locator(".lsf-tool_smart").first.click()
    page.locator(".lsf-toolbar__smart").get_by_label("key-point-tool").click()
    shown = page.locator(".konvajs-content canvas").first.bounding_box()
    page.mouse.click(shown["x"] + shown["width"] * 0.5, shown["y"] + shown["height"] * 0.5)
    page.get_by_text("1 suggestions").wait_for()
    ((size_hw, points, inside),) = model[1]
    assert (size_hw, inside) == ((40, 60), [True])
    np.testing.assert_allclose(points, [[30, 20]], atol=0.5)
    page.locator(".lsf-auto-accept button").last.click()
    page.get_by_text("1 suggestions").wait_for(state="detached")
    has_regions(page, 1)
    submit(page)
    (task,) = asked(studio, f"/api/projects/{project}/tasks/")
    (annotation,) = asked(studio, f"/api/tasks/{task['id']}/annotations/")
    (brush,) = annotation["result"]
    assert (brush["type"], brush["from_name"], brush["value"]["brushlabels"]) == ("brushlabels", "brush", ["dog"])
    (back,) = objects_of(brush["value"], (40, 60), True, None)
    assert coco_mask.decode(back.mask_rle).tolist() == MASK.tolist()


def keep(page: Any) -> None:
    if folder := os.environ.get("DEIXIS_PICTURES"):
        page.wait_for_timeout(2000)
        page.screenshot(path=f"{folder}/label_studio.png")
