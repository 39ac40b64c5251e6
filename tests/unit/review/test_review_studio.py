"""A review in Label Studio and back: what people change there, apart from each other; against a stand-in of its API."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_reviews import SIZE_HW, small_review
from stand_in_label_studio import LEGACY, REFRESH, StandIn, label_studio

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from deixis.data.formats import read_dataset
from deixis.errors import DataError, OptionError
from deixis.geometry.rle import bitmap_rle, plain_rle
from deixis.options.review.push import ReviewPullOptions, ReviewPushOptions
from deixis.recipes.review.studio import annotations_by_person, pull_review, push_review
from deixis.review import actions
from deixis.review.corrected import IMAGE_KEY
from deixis.review.store import Store


@pytest.fixture
def studio() -> Iterator[StandIn]:
    with label_studio() as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with small_review(tmp_path) as store:
        return store.file


def push(studio: StandIn, file: Path, **more: Any) -> None:
    push_review(ReviewPushOptions(data=str(file), url=studio.url, key=REFRESH, **more))


def pull(studio: StandIn, file: Path, **more: Any) -> list[Path]:
    return pull_review(ReviewPullOptions(db=str(file), url=studio.url, key=LEGACY, **more))


def states(file: Path) -> list[tuple[int, str, str, str, str]]:
    with Store(file) as store:
        rows = store.rows("SELECT * FROM objects ORDER BY id")
    return [(row["image"], row["label"], row["origin"], row["status"], row["annotator"]) for row in rows]


def test_a_project_has_classes_pictures_and_predictions(studio: StandIn, file: Path) -> None:
    push(studio, file, title="t" * 80, backend="http://localhost:8000/label-studio")
    project = studio.projects[1]
    assert set(project["controls"]) == {"box", "polygon", "brush", "click"}
    assert project["controls"]["box"] == ["cat", "<b>dog</b>", "größe"]
    assert [task["data"]["deixis_image"] for task in project["tasks"]] == [2, 3, 1], "in the order of the queue"
    first = project["tasks"][0]
    assert first["data"]["image"] == f"/data/upload/1/{studio.uploads[1][1]}"
    assert Image.open(BytesIO(studio.uploads[1][2])).size == SIZE_HW[::-1]
    prediction = first["predictions"][0]
    assert (prediction["model_version"], prediction["score"]) == ("runs/a", 0.8)
    assert [region["id"] for region in prediction["result"]] == ["deixis-2", "deixis-3", "deixis-4"]
    assert "score" not in prediction["result"][0], "nobody scored a label"
    assert prediction["result"][2]["score"] == 0.8
    assert studio.backends[0]["url"] == "http://localhost:8000/label-studio"
    with pytest.raises(OptionError, match="is in project 1 already"):
        push(studio, file)


def test_what_was_changed_there_is_what_is_here(studio: StandIn, file: Path, capsys: Any) -> None:
    push(studio, file)
    assert pull(studio, file) == []

    def change(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
        dog, cat, _ = result
        dog["value"]["rectanglelabels"] = ["größe"]
        cat["value"]["x"] += 10  # of 60 pixels
        drawn = {**cat, "id": "aB3", "value": {"x": 0, "y": 50, "width": 50, "height": 50, "rotation": 0}}
        drawn["value"]["rectanglelabels"] = ["cat"]
        return [dog, cat, drawn]

    studio.annotate(1, 0, 1, change)
    studio.annotate(1, 1, 1, was_cancelled=True)
    studio.annotate(1, 2, 1)
    assert pull(studio, file) == [file]
    who = "ann@example.org"
    assert states(file) == [
        (1, "cat", "label", "accepted", who),
        (2, "größe", "label", "accepted", who),
        (2, "cat", "label", "accepted", who),
        (2, "cat", "model", "rejected", who),
        (3, "cat", "model", "open", ""),
        (2, "cat", "drawn", "accepted", who),
    ]
    assert "1 accepted, 1 renamed, 1 moved, 1 drawn, 1 rejected" in capsys.readouterr().out
    read = read_dataset(file)
    np.testing.assert_allclose(
        read[1].instances.boxes_xyxy_px, [[5, 5, 25, 15], [36, 10, 56, 35], [0, 20, 30, 40]], atol=0.01
    )
    pull(studio, file)
    assert "0 images of ann@example.org, 2 were reviewed before" in capsys.readouterr().out
    assert len(states(file)) == 6, "again, it changes nothing"


@pytest.mark.parametrize("undated", [{}, {"updated_at": None}, {"updated_at": "", "created_at": None}])
def test_an_annotation_without_dates_is_older_than_those_with(undated: dict[str, Any]) -> None:
    old, new = {"result": [1], **undated}, {"result": [2], "created_at": "2026-01-01T00:00:00Z"}
    for order in ([old, new], [new, old]):
        task = {"data": {IMAGE_KEY: 5}, "annotations": [{"completed_by": 1, **one} for one in order]}
        assert annotations_by_person([task], {1: "a@b.c"}) == {"a@b.c": [(5, [2])]}


def test_several_people_are_kept_apart(studio: StandIn, file: Path) -> None:
    push(studio, file)
    studio.annotate(1, 2, 1)
    studio.annotate(1, 2, 2, lambda result: [])
    ann, bob = pull(studio, file)
    assert (ann.name, bob.name) == ("review.ann@example.org.db", "review.bob@example.org.db")
    assert (states(ann)[0][3:], states(bob)[0][3:]) == (
        ("accepted", "ann@example.org"),
        ("rejected", "bob@example.org"),
    )
    assert states(file)[0][3] == "open"
    assert pull(studio, file, annotator="bob@example.org") == [file]
    assert states(file)[0][3:] == ("rejected", "bob@example.org")
    with pytest.raises(OptionError, match=r"'eve' annotated nothing; found ann@example\.org, bob@"):
        pull(studio, file, annotator="eve")


@pytest.mark.parametrize("masks", ["brush", "polygon"])
def test_masks_come_back_as_they_were_or_as_they_were_redrawn(masks: Any, studio: StandIn, tmp_path: Path) -> None:
    with small_review(tmp_path, with_model=False) as store:
        pixels = np.zeros(SIZE_HW, np.uint8)
        pixels[10:30, 20:50] = 1
        mask = plain_rle(bitmap_rle(pixels))
        for image in (1, 3):
            actions.add_object(store, image, "cat", annotator="ann", mask=mask)
        file = store.file
    push(studio, file, masks=masks)

    def smaller(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
        region = result[-1]
        region["type"] = "polygonlabels"
        region["value"] = {"points": [[50, 50], [80, 50], [80, 75]], "polygonlabels": ["cat"]}
        return result

    by_image = {task["data"]["deixis_image"]: place for place, task in enumerate(studio.projects[1]["tasks"])}
    studio.annotate(1, by_image[1], 1)
    studio.annotate(1, by_image[3], 1, smaller)
    pull(studio, file)
    with Store(file) as store:
        kept, redrawn, new = store.rows("SELECT * FROM objects WHERE origin = 'drawn' ORDER BY id")
        assert (kept["status"], redrawn["status"], new["status"]) == ("accepted", "rejected", "accepted")
        assert kept["mask"] is not None
        assert new["mask"] is not None


@pytest.mark.parametrize(
    ("region", "said"),
    [
        (5, "a region of Label Studio that is none"),
        ({"id": "deixis-1", "value": {"rectanglelabels": ["cat"], "x": 1}}, "has no number"),
        ({"id": "x", "value": {"rectanglelabels": [" "], "x": 1, "y": 1, "width": 9, "height": 9}}, "label: expected"),
    ],
)
def test_hostile_annotations_are_one_line(region: Any, said: str, studio: StandIn, file: Path) -> None:
    push(studio, file)
    studio.annotate(1, 2, 1, lambda result: [region])
    with pytest.raises(DataError, match=said) as caught:
        pull(studio, file)
    assert "\n" not in str(caught.value)


def test_what_is_no_label_studio_is_one_line(studio: StandIn, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    with pytest.raises(OptionError, match="--key is required, or LABEL_STUDIO_API_KEY"):
        push_review(ReviewPushOptions(data=str(file), url=studio.url))
    for key in ("wrong", "wr.on.g"):
        with pytest.raises(DataError, match="the server reports 401"):
            push_review(ReviewPushOptions(data=str(file), url=studio.url, key=key))
    with pytest.raises(DataError, match="cannot be downloaded"):
        push_review(ReviewPushOptions(data=str(file), url="http://127.0.0.1:1", key="a"))
    with pytest.raises(DataError, match="was not sent to Label Studio"):
        pull(studio, file)
    push(studio, file)
    studio.projects[1]["tasks"][0]["data"].pop("deixis_image")
    studio.annotate(1, 0, 1)
    with pytest.raises(DataError, match="was not sent by deixis review push"):
        pull(studio, file)
