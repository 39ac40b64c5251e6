"""What `data check` finds is told by training, evaluation and dry runs too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import train_arguments

from deixis.console import Console
from deixis.data.checks.limits import ModelLimits
from deixis.data.formats import read_dataset
from deixis.recipes.data.survey import report_findings


def write(folder: Path, names: str = "cat", count: int = 4, size: int = 64, box: tuple = (8, 8, 30, 30), seed: int = 0):
    """A COCO set of noise, each picture with one object."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(generator.integers(0, 255, (size, size, 3), np.uint8)).save(folder / f"{i}.png")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": size, "height": size} for i in range(count)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": list(box)} for i in range(count)],
        "categories": [{"id": 1, "name": names}],
    }
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


@pytest.fixture
def dry_run(deixis, tiny_model, tmp_path):
    def run(data, validation, *more):
        arguments = train_arguments(tiny_model, tmp_path / "runs", "--data", str(data), "--val-data", str(validation))
        return deixis([*arguments, "--dry-run", *more])

    return run


def test_a_dry_run_decodes_all_and_compares_the_sets(dry_run, tmp_path):
    data = write(tmp_path / "a", "cat")
    validation = write(tmp_path / "b", "dog", seed=1)
    (tmp_path / "a" / "2.png").write_bytes((tmp_path / "a" / "2.png").read_bytes()[:200])
    code, out, err = dry_run(data, validation)
    assert code == 0
    assert "images that cannot be decoded: 1 (2.png" in err
    assert "validation classes without a training object: 1 (labels.json, class 'dog'" in err
    assert "notes on the data: " in out
    code, _, err = dry_run(data, validation, "--max-unreadable-images", "0")
    assert code == 2
    assert "2.png: cannot decode image" in err
    (tmp_path / "b" / "1.png").write_bytes(b"")
    code, _, err = dry_run(write(tmp_path / "c"), validation)
    assert (code, "1.png: cannot decode" in err) == (2, True)


def test_small_objects_are_told_by_all_three(deixis, dry_run, tiny_model, tmp_path):
    data = write(tmp_path / "a", size=600, box=(50, 50, 8, 8))
    told = "images with objects too small for the model: "
    assert told in dry_run(data, write(tmp_path / "b", seed=1))[2]
    assert told in deixis(["detect", "eval", "--data", data, "--model", tiny_model])[2]
    assert told in deixis(["data", "check", "--data", data, "--model", tiny_model])[1]


def test_what_is_shared_is_told_without_decoding(deixis, tiny_model, tmp_path):
    data = write(tmp_path / "a")
    arguments = train_arguments(tiny_model, tmp_path / "runs", "--data", str(data), "--val-data", str(data))
    _, _, err = deixis([*arguments, "--max-steps", "1", "--no-baseline", "--no-report", "--workers", "0"])
    assert "validation images that are trained on: 4 (the first: 0.png" in err


@pytest.mark.parametrize(("low", "high", "told"), [(7200, 7600, True), (0, 65535, False), (100, 30000, False)])
def test_16_bit_pictures_of_a_sliver_are_told(deixis, tiny_model, tmp_path, low, high, told):
    data = write(tmp_path / "a")
    generator = np.random.default_rng(0)
    for i in range(4):
        values = generator.integers(low, high, (64, 64)).astype(np.uint16)
        values[0, 0] = 65535  # a dead pixel does not make a range
        Image.fromarray(values).save(tmp_path / "a" / f"{i}.png")
    assert ("of 0 to 65535" in deixis(["detect", "eval", "--data", data, "--model", tiny_model])[2]) == told
    assert ("of 0 to 65535" in deixis(["data", "check", "--data", data])[1]) == told


def test_a_cleaned_copy_without_objects_is_not_written(deixis, tmp_path):
    data = write(tmp_path / "a")
    content = json.loads(data.read_text())
    for row in content["annotations"]:
        row["image_id"] = 99
    data.write_text(json.dumps(content))
    code, _, err = deixis(["data", "check", "--data", data, "--fix", tmp_path / "fixed"])
    assert code == 2
    assert "no object is left after cleaning" in err
    assert not (tmp_path / "fixed").exists()


def test_fixes_tell_of_objects_that_were_added_only(deixis, tmp_path):
    data = write(tmp_path / "a", count=2)
    (tmp_path / "a" / "1.png").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    content = json.loads(data.read_text())
    content["annotations"][1]["bbox"] = [10, 10, 26, 26]  # the first has it, drawn a little larger
    data.write_text(json.dumps(content))
    deixis(["data", "check", "--data", data, "--fix", tmp_path / "fixed"])
    fixes = (tmp_path / "fixed" / "fixes.txt").read_text()
    assert "its objects left out: none is new" in fixes
    assert "added" not in fixes


def test_without_a_model_nothing_is_said_of_pieces(deixis, tmp_path):
    data = write(tmp_path / "a", "king")
    _, out, _ = deixis(["data", "check", "--data", data])
    assert "pieces" not in out
    assert "prompt:" not in out
    _, out, _ = deixis(["data", "check", "--data", data, "--model", "builtin"])
    assert "'king' is read in 4 pieces" in out


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
@pytest.mark.parametrize("decode", [False, True])
def test_leaks_of_every_training_set_are_reported(tmp_path, capsys, order, decode):
    places = {"one": write(tmp_path / "one"), "two": write(tmp_path / "two", seed=1)}
    data = [*(places[name] for name in order), places["two"]]
    sets = [(str(place), None, read_dataset(place)) for place in data]
    report_findings(Console(quiet=True), sets, None, ModelLimits(), decode, training=2)
    assert "validation images that are trained on: 4 (the first: 0.png" in capsys.readouterr().err
