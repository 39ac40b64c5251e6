"""`deixis data merge` and `deixis data diff`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from format_examples import write_example
from PIL import Image

from deixis.cli.main import main, run
from deixis.data.formats import read_dataset
from deixis.data.formats.table import FORMATS
from deixis.data.sets.class_names import name_conflicts, name_key
from deixis.recipes.data import merge

SIDE = 100
Objects = list[tuple[str, float]]


def write(folder: Path, names: list[str], found: list[Objects], first: int = 1, first_id: int = 10) -> Path:
    """COCO's JSON: for each image, objects of 20 pixels by class and left side; the picture depends on its number."""
    (folder / "images").mkdir(parents=True)
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    content["categories"] = [{"id": first_id + i, "name": name} for i, name in enumerate(names)]
    for number, objects in enumerate(found, start=first):
        Image.effect_noise((SIDE, SIDE), 40 * number).convert("RGB").save(folder / "images" / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        for label, left in objects:
            row = {"id": len(content["annotations"]), "image_id": number, "category_id": first_id + names.index(label)}
            content["annotations"].append(row | {"bbox": [left, 5, 20, 20], "area": 400, "iscrowd": 0})
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("cat", "Cat", True),
        ("traffic light", "Traffic_Lights", True),
        ("bus", "buses", True),
        ("berry", "berries", True),
        ("glass", "glasses", True),
        ("aeroplane", "airplane", True),
        ("TV monitor", "tv", True),
        ("person", "people", True),
        ("bus", "bu", False),
        ("cat", "cap", False),
        ("lens", "len", True),
        ("中", "国", False),
    ],
)
def test_names_that_may_be_one_class(one: str, other: str, same: bool) -> None:
    assert (name_key(one) == name_key(other)) == same


def test_names_that_one_data_set_keeps_apart_are_no_conflict() -> None:
    assert name_conflicts([["cat", "dog"], ["Cats", "dog"]]) == [["cat", "Cats"]]
    assert name_conflicts([["cat", "Cats"], ["Cats"]]) == []


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    one = write(tmp_path / "one", ["cat", "dog"], [[("cat", 0), ("dog", 40)], [("dog", 0)]])
    other = write(tmp_path / "other", ["dog", "Cats", "bird"], [[("dog", 0)], [("bird", 4), ("Cats", 50)]], first=2)
    first, second = (place.parent / "images" / "2.png" for place in (one, other))
    second.write_bytes(first.read_bytes())
    return [str(one), str(other)]


def test_names_alike_are_refused_with_the_options_that_decide(two: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "merge", *two, "--output", "x"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "'cat' and 'Cats'; decide with --merge cat,Cats=cat" in said
    assert "--names merge or --names separate" in said
    with pytest.raises(SystemExit):
        main(["data", "merge", two[0], "--output", "x"])
    assert "expected two data sets or more" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "names"), [("y", ("cat", "dog", "bird")), ("n", ("cat", "dog", "Cats", "bird"))])
def test_names_alike_are_asked_about_on_a_terminal(
    two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda: answer)
    run(["data", "merge", *two, "--output", str(tmp_path / "out")])
    assert read_dataset(tmp_path / "out").vocabulary.names == names


def test_merged_images_are_numbered_and_ids_are_those_of_the_first(two: list[str], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    run(["data", "merge", *two, "--output", str(out), "--merge", "cat,Cats=cat"])
    written = json.loads((out / "labels.json").read_text())
    assert [(row["id"], row["name"]) for row in written["categories"]] == [(10, "cat"), (11, "dog"), (12, "bird")]
    assert [row["id"] for row in written["images"]] == [1, 2, 3, 4]
    assert [row["category_id"] for row in written["annotations"]] == [10, 11, 11, 11, 12, 10]
    assert len(list((out / "images").iterdir())) == 4
    said = capsys.readouterr().out
    assert "category ids that change: cat (11 is 10), dog (10 is 11)" in said
    assert "1 images of a data set are also in one before it, kept twice: 2.png (2.png)" in said


def test_what_a_data_set_does_not_name_is_not_known_to_be_absent(two: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(["data", "merge", *two, "--output", str(out), "--to", "lvis", "--names", "merge", "--duplicates", "first"])
    merged = read_dataset(out)
    assert len(merged) == 3
    bird = merged.vocabulary.names.index("bird")
    assert [merged[i].judges(bird) for i in range(3)] == [False, False, True]


def test_splits_and_embedded_pictures_are_kept(two: list[str], tmp_path: Path) -> None:
    parts, inside, out = tmp_path / "parts", tmp_path / "inside", tmp_path / "out"
    run(["data", "split", "--data", two[0], "--output", str(parts), "--to", "yolo", "--fractions", "1", "1"])
    pytest.importorskip("pyarrow")
    run(["data", "convert", "--data", two[1], "--output", str(inside), "--to", "parquet"])
    run(["data", "merge", str(parts), str(inside), "--output", str(out), "--names", "merge"])
    train, val = (read_dataset(out, split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 1)
    assert train.vocabulary.names == val.vocabulary.names == ("cat", "dog", "bird")


@pytest.fixture
def versions(tmp_path: Path) -> list[str]:
    old: list[Objects] = [[("cat", 0), ("dog", 40)], [("dog", 0)], [("cat", 0)]]
    new: list[Objects] = [[("cat", 3), ("hound", 40), ("cat", 70)], [("dog", 0)]]
    write(tmp_path / "new", ["cat", "dog", "hound"], new)
    write(tmp_path / "old", ["cat", "dog"], old)
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "new" / "images" / "4.png")
    content = json.loads((tmp_path / "new" / "labels.json").read_text())
    content["images"].append({"id": 4, "file_name": "4.png", "width": SIDE, "height": SIDE})
    (tmp_path / "new" / "labels.json").write_text(json.dumps(content))
    return [str(tmp_path / "old" / "labels.json"), str(tmp_path / "new" / "labels.json")]


def test_what_changed_by_image_and_by_class(versions: list[str], capsys: Any) -> None:
    assert run(["data", "diff", *versions, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["counts"] == {
        "images in both": 2, "images changed": 1, "images added": 1, "images gone": 1,
        "objects added": 1, "objects gone": 0, "objects moved": 1, "objects renamed": 1,
    }  # fmt: skip
    assert (said["images_added"], said["images_gone"]) == (["4.png"], ["3.png"])
    assert said["renamed"] == [{"from": "dog", "to": "hound", "objects": 1}]
    (image,) = said["images"]
    assert image["image"] == "1.png"
    assert [change["kind"] for change in image["changes"]] == ["moved", "renamed", "added"]
    assert image["changes"][0]["after"] == {"label": "cat", "box_xyxy_px": [3, 5, 23, 25]}
    cat, dog = said["classes"]["cat"], said["classes"]["dog"]
    assert (cat["before"], cat["after"], cat["added"], cat["gone"], cat["moved"]) == (2, 2, 1, 1, 1)
    assert (dog["before"], dog["after"], dog["renamed_from"], dog["renamed_to"]) == (2, 1, 1, 0)


def test_the_same_in_another_format_is_no_change(versions: list[str], tmp_path: Path, capsys: Any) -> None:
    run(["data", "convert", "--data", versions[0], "--to", "voc", "--output", str(tmp_path / "voc")])
    assert run(["data", "diff", versions[0], str(tmp_path / "voc")]) == 0
    assert "3 images in both, 0 images changed" in capsys.readouterr().out


def test_images_of_other_names_are_found_by_their_content(versions: list[str], tmp_path: Path, capsys: Any) -> None:
    content = json.loads(Path(versions[0]).read_text())
    folder = tmp_path / "again"
    (folder / "images").mkdir(parents=True)
    for row in content["images"]:
        file = Path(versions[0]).parent / "images" / row["file_name"]
        row["file_name"] = f"new_{row['file_name']}"
        (folder / "images" / row["file_name"]).write_bytes(file.read_bytes())
    (folder / "labels.json").write_text(json.dumps(content))
    assert run(["data", "diff", versions[0], str(folder)]) == 0
    capsys.readouterr()


def test_the_page_shows_what_changed(versions: list[str], tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "changes.html"
    assert run(["data", "diff", *versions, "--output", str(page)]) == 1
    text = page.read_text()
    assert text.count("<img") == 2
    assert "1.png, before: 1 added, 1 moved, 1 renamed" in text
    said = capsys.readouterr().out
    assert "1.png: 1 added, 1 moved, 1 renamed" in said
    assert "image gone: 3.png" in said
    assert "renamed from 'dog' to 'hound': 1 objects" in said
    with pytest.raises(SystemExit) as caught:
        main(["data", "diff", versions[0]])
    assert caught.value.code == 2


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if "split" in one.takes])
def test_a_set_without_splits_is_merged_in_every_format(name: str, tmp_path: Path, monkeypatch) -> None:
    place = write_example(name, tmp_path / "set")
    data = place if FORMATS[name].find(place) else tmp_path / "set"
    found = merge._by_split(str(data), None, name)
    assert list(found) == ["train"]
    assert len(found["train"]) == len(read_dataset(data, format=name)) > 0
