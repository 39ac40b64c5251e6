"""A round trip of a review through a real Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import real_label_studio as real

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from small_reviews import small_review

from deixis.data.inputs.download import download
from deixis.options.review.push import ReviewPullOptions, ReviewPushOptions
from deixis.recipes.review.studio import pull_review, push_review
from deixis.review import actions
from deixis.review.store import Store
from deixis.serving.labelling.task_images import LabelStudio


def asked(studio: LabelStudio, path: str, values: Any = None) -> Any:
    body = None if values is None else json.dumps(values).encode()
    headers = {**studio.headers(), "Content-Type": "application/json"}
    return json.loads(download(studio.url + path, hosts=studio.hosts, headers=headers, body=body))


@pytest.mark.slow
@pytest.mark.skipif(not real.COMMAND, reason=real.WHY_NOT)
def test_what_a_person_submits_there_comes_back(tmp_path: Path) -> None:
    (tmp_path / "studio").mkdir()
    with small_review(tmp_path) as store:
        file = store.file
        mask = {"size": [40, 60], "counts": [405, 10, 30, 10, 1945]}
        actions.add_object(store, 1, "größe", annotator="ann", mask=mask)
    with real.label_studio(tmp_path / "studio") as (url, key):
        studio = LabelStudio(url, key)
        push_review(ReviewPushOptions(data=str(file), url=url, key=key))
        with Store(file) as store:
            project = store.fact("project")
        for task in asked(studio, f"/api/projects/{project}/tasks/"):
            picture = download(url + task["data"]["image"], hosts=studio.hosts, headers=studio.headers())
            assert picture.startswith(b"\xff\xd8"), "the picture is there"
            (prediction,) = asked(studio, f"/api/predictions/?task={task['id']}")
            assert prediction["model_version"] == "runs/a"
            result = prediction["result"]
            if task["data"]["deixis_image"] == 2:
                result[0]["value"]["rectanglelabels"] = ["größe"]
                result[1]["value"]["x"] += 10
                result.pop()
            asked(studio, f"/api/tasks/{task['id']}/annotations/", {"result": result})
        assert pull_review(ReviewPullOptions(db=str(file), url=url, key=key)) == [file]
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
    assert {row["annotator"] for row in rows[:5]} == {"someone@example.org"}
