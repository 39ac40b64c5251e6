"""`--classes`, `--drop`, `--rename`, `--merge`, `--min-area`, `--sample` in the commands that read annotations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from deixis.cli.main import main, run
from deixis.data.formats import read_dataset
from deixis.options.annotated_data import ClassTools
from deixis.options.detect_eval import DetectEvalOptions
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.detect.data.sources import read_training_data
from deixis.recipes.detect.evaluate import evaluate_detector

SIDE = 100


def write(folder: Path, names: list[str], found: list[list[str]], side: float = 20) -> Path:
    """COCO's JSON with an image for each list of names."""
    (folder / "images").mkdir(parents=True)
    content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 10 + i, "name": name} for i, name in enumerate(names)]
    for number, labels in enumerate(found, start=1):
        name = f"{number}.png"
        Image.effect_noise((SIDE, SIDE), 50 + number).convert("RGB").save(folder / "images" / name)
        content["images"].append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        for place, label in enumerate(labels):
            row = {"id": 100 * number + place, "image_id": number, "category_id": 10 + names.index(label), "iscrowd": 0}
            content["annotations"].append(row | {"bbox": [22 * place, 5, side, side], "area": side * side})
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    names = ["n01440764", "car", "bus", "person"]
    return write(tmp_path / "traffic", names, [["car", "bus", "person"], ["n01440764"], ["person"], ["car"]])


def test_convert_writes_the_classes_that_are_asked_for(
    traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    change = ["--rename", "n01440764=tench", "car=vehicle", "bus=vehicle", "--drop", "person"]
    assert run(["data", "convert", "--data", str(traffic), "--output", str(out), *change]) == 0
    written = json.loads((out / "labels.json").read_text())
    assert [(row["id"], row["name"]) for row in written["categories"]] == [(10, "tench"), (11, "vehicle")]
    assert [row["category_id"] for row in written["annotations"]] == [11, 11, 10, 11]
    assert len(written["images"]) == 4
    said = capsys.readouterr().out
    for line in (
        "left out 1 classes with 2 objects: person (2)",
        "renamed 'n01440764' to 'tench': 1 objects",
        "merged 'car', 'bus' into 'vehicle': 3 objects",
        "1 images have no object left; they stay, as images without objects",
    ):
        assert line in said


def test_a_wrong_name_ends_with_a_suggestion(traffic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["data", "convert", "--dry-run"], ["data", "check"], ["data", "split", "--output", "x"]):
        with pytest.raises(SystemExit) as caught:
            main([*command, "--data", str(traffic), "--classes", "Car,person"])
        assert caught.value.code == 2
        assert "--classes: no class 'Car' in labels; did you mean 'car'? Its classes:" in capsys.readouterr().err


def test_check_looks_at_what_is_used(traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = tmp_path / "fixed"
    assert run(["data", "check", "--data", str(traffic), "--merge", "car,bus=vehicle", "--classes", "vehicle",
                "--json", "--fix", str(fixed)]) == 0  # fmt: skip
    said = capsys.readouterr()
    assert json.loads(said.out)["classes"] == {"vehicle": 3}
    assert "merged 'car', 'bus' into 'vehicle': 3 objects" in said.err
    assert read_dataset(fixed).vocabulary.names == ("vehicle",)


def test_check_of_two_sides_by_the_names_of_both(
    traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "val", ["person", "tench"], [["person"], ["tench"]])
    run(["data", "check", "--data", str(traffic), "--val-data", str(other), "--json", "--rename", "n01440764=tench",
         "--classes", "tench", "person"])  # fmt: skip
    found = [one["kind"] for one in json.loads(capsys.readouterr().out)["findings"]]
    assert "class_untrained" not in found
    assert "class_unmeasured" not in found


def test_split_and_sample(traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "parts"
    run(["data", "split", "--data", str(traffic), "--output", str(out), "--classes", "car", "--sample", "3"])
    train, val = read_dataset(out / "train"), read_dataset(out / "val")
    assert train.vocabulary.names == val.vocabulary.names == ("car",)
    assert len(train) + len(val) == 3
    assert "drew 3 of 4 images" in capsys.readouterr().out


def test_parquet_is_sampled_and_cleaned(traffic: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    inside, fixed = tmp_path / "inside", tmp_path / "fixed"
    run(["data", "convert", "--data", str(traffic), "--to", "parquet", "--output", str(inside)])
    run(["data", "check", "--data", str(inside), "--classes", "car", "--sample", "2", "--fix", str(fixed)])
    again = read_dataset(fixed)
    assert (len(again), again.vocabulary.names) == (2, ("car",))


def test_training_reads_all_sets_by_the_names_of_all(traffic: Path, tmp_path: Path) -> None:
    validation = write(tmp_path / "val", ["bus", "person"], [["bus", "person"], ["person"]])
    options = DetectTrainOptions(data=(str(traffic),), val_data=str(validation), model="x")
    tools = ClassTools(merge=("car,bus=vehicle",), classes=("vehicle",), sample=3)
    data = read_training_data(options, tools)
    assert data.training.vocabulary.names == data.validation.vocabulary.names == ("vehicle",)
    assert (len(data.training), len(data.validation)) == (3, 2), "validation data is not sampled"
    assert "merged 'car', 'bus' into 'vehicle': 3 objects" in data.left_out
    assert data.used == {"car": "vehicle", "bus": "vehicle"}


def test_evaluation_asks_for_the_classes_that_are_used(traffic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = DetectEvalOptions(
        data=str(traffic),
        model="builtin",
        device="cpu",
        rename=("n01440764=tench",),
        classes=("tench", "car"),
        sample=2,
    )
    metrics = evaluate_detector(options)
    assert set(metrics.per_class) == {"tench", "car"}
    assert metrics.images == 2
    said = capsys.readouterr()
    assert "left out 2 classes with 3 objects: person (2), bus (1)" in said.out
    assert "person" not in said.err
