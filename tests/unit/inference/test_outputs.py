"""Finding images, and writing predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.errors import DataError
from deixis.inference.images import as_pixels, find_images
from deixis.inference.outputs.detections import coco_results, picture_names, write_predictions
from deixis.records import Vocabulary
from deixis.results.detections import Detections
from deixis.results.draw import draw_detections


def _picture(path: Path, height: int = 10, width: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)
    return path


def _found(image_id: int = 7) -> Detections:
    return Detections(
        np.array([[1.0, 2, 31, 9], [0, 0, 4, 4]]),
        np.array([0.9, 0.4]),
        np.array([1, 0]),
        ("cat", "dog"),
        image_id,
        (10, 40),
    )


def _none() -> Detections:
    return Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), ("cat", "dog"), 8, (10, 40))


def test_writes_json_coco_results_and_pictures(tmp_path: Path) -> None:
    images = [_picture(tmp_path / "in" / "a.jpg"), _picture(tmp_path / "in" / "b.png")]
    write_predictions(
        tmp_path / "out",
        [_found(), _none()],
        images,
        draw=draw_detections,
        vocabulary=Vocabulary(("dog", "cat"), (50, 60)),
    )
    first, second = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert first["file"] == str(images[0])
    assert (first["width"], first["height"]) == (40, 10)
    assert first["objects"][0] == {"label": "dog", "score": 0.9, "box_xyxy_px": [1.0, 2.0, 31.0, 9.0]}
    assert second["objects"] == []
    results = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    assert results[0] == {"image_id": 7, "category_id": 50, "bbox": [1.0, 2.0, 30.0, 7.0], "score": 0.9}
    assert [r["category_id"] for r in results] == [50, 60]
    assert sorted(p.name for p in (tmp_path / "out" / "pictures").iterdir()) == ["a.jpg", "b.jpg"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["coco_results.json", "pictures", "predictions.json"]


def test_without_a_vocabulary_categories_count_from_one() -> None:
    assert [r["category_id"] for r in coco_results([_found()])] == [2, 1]


def test_results_need_the_vocabularys_names() -> None:
    with pytest.raises(DataError, match="dog"):
        coco_results([_found()], Vocabulary(("cat",)))


def test_counts_must_agree(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 detection records for 0 images"):
        write_predictions(tmp_path, [_found()], [])


def test_unwritable_output_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"predictions\.json: cannot be written"):
        write_predictions(tmp_path / "file" / "out", [], [])


def test_equal_stems_get_different_pictures() -> None:
    images = ["x/a.jpg", "y/a.png", "A.jpg", np.zeros((2, 2, 3), np.uint8)]
    assert picture_names(images) == ["a.jpg", "a_2.jpg", "A_3.jpg", "image_00003.jpg"]


def test_finds_images_in_folders_files_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep, upper = _picture(tmp_path / "deep" / "b.png"), _picture(tmp_path / "a.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    assert find_images(tmp_path) == [upper, deep]
    assert find_images([deep, tmp_path]) == [deep, upper]
    assert find_images(str(tmp_path / "**" / "*")) == [upper, deep]
    monkeypatch.chdir(tmp_path)
    assert find_images("*.JPG") == [Path("a.JPG")]


@pytest.mark.parametrize(
    ("path", "message"),
    [("absent.jpg", "no such file"), ("*.gif", "matches no image"), ("empty", "no image in this folder")],
)
def test_nothing_found_says_so(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        find_images(tmp_path / path)
    with pytest.raises(DataError, match="no images to read"):
        find_images([])


def test_pil_images_become_rgb_over_white() -> None:
    clear = Image.new("RGBA", (3, 2), (10, 20, 30, 0))
    assert as_pixels(clear).tolist() == np.full((2, 3, 3), 255).tolist()
    assert as_pixels(Image.new("L", (3, 2), 7)).tolist() == np.full((2, 3, 3), 7).tolist()
    with pytest.raises(DataError, match="mode I;16"):
        as_pixels(Image.new("I;16", (3, 2)))
