"""`deixis detect predict` with more names than a prompt holds, from files."""

from __future__ import annotations

import json

import pytest
from tiny_runs import write_coco

from deixis.options.detect_predict import DetectPredictOptions
from deixis.recipes.detect.predict import asked_names


def test_names_of_all_sources_are_asked_once_each(tmp_path):
    labels = write_coco(tmp_path / "data", count=1)  # its class is "star"
    file = tmp_path / "names.txt"
    file.write_text("\ufefffish\n\n  traffic light \nhouse\nfish\n", encoding="utf-8")
    options = DetectPredictOptions(names=("house", "cat"), names_file=file, names_data=str(labels))
    assert list(asked_names(options)) == ["house", "cat", "fish", "traffic light", "star"]


def test_hundreds_of_names_from_a_file(deixis, tiny_model, tmp_path):
    write_coco(tmp_path / "data", count=2)
    names = [f"thing {number}" for number in range(200)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    out = tmp_path / "found"
    asked = ("--names-file", tmp_path / "names.txt", "--threshold", "0", "--max-detections", "150", "--output", out)
    pictures = ("--images", tmp_path / "data/images")
    code, _, err = deixis(["detect", "predict", "--model", tiny_model, *pictures, *asked])
    assert code == 0, err
    records = json.loads((out / "predictions.json").read_text())
    assert [len(record["objects"]) for record in records] == [150, 150]
    results = json.loads((out / "coco_results.json").read_text())
    assert {names[result["category_id"] - 1] for result in results} == {
        found["label"] for record in records for found in record["objects"]
    }


@pytest.mark.parametrize(("content", "message"), [(b" \n", "has no names"), (b"\xff\xfe", "cannot be read")])
def test_a_names_file_without_names_is_told(deixis, tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    pictures = ("--images", write_coco(tmp_path / "data", count=1).parent / "images")
    code, _, err = deixis(
        ["detect", "predict", *pictures, "--model", "builtin", "--names-file", tmp_path / "names.txt"]
    )
    assert code == 2
    assert "--names-file" in err
    assert message in err


def test_a_name_longer_than_a_prompt_is_told(deixis, tiny_model, tmp_path):
    (tmp_path / "names.txt").write_text("star\n" + "fish " * 300)
    pictures = ("--images", write_coco(tmp_path / "data", count=1).parent / "images")
    code, _, err = deixis(
        ["detect", "predict", "--model", tiny_model, *pictures, "--names-file", tmp_path / "names.txt"]
    )
    assert code == 2
    assert "class name 'fish fish" in err
    assert len(err.splitlines()) == 1
