"""`deixis data split`: copies together, classes shared out, the same again by the seed, in every format."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.cli.main import main, run
from deixis.data.formats import read_dataset
from deixis.data.formats.writing import write_dataset
from deixis.data.sets.split import split_stratified
from deixis.errors import DataError
from deixis.records import Instances, Sample, SampleList, Vocabulary

SCENES = "scenes:split=demo_train,count=8,seed=1"
NAMES = ("common", "rare", "rarest")


def labelled(classes: list[list[int]]) -> SampleList:
    """Images with one object of each class named."""
    vocabulary = Vocabulary(NAMES)
    samples = tuple(
        Sample(Path(f"{i}.jpg"), (10, 10), Instances.build([[1, 1, 5, 5]] * len(ids), ids), vocabulary, i)
        for i, ids in enumerate(classes)
    )
    return SampleList(samples, vocabulary)


def alone(dataset: SampleList) -> list[list[int]]:
    return [[i] for i in range(len(dataset))]


def share(dataset: SampleList, part: tuple[int, ...], class_id: int) -> int:
    return sum(class_id in dataset[i].instances.class_ids for i in part)


@pytest.mark.parametrize("seed", range(5))
def test_each_class_is_shared_out(seed: int) -> None:
    dataset = labelled([[0]] * 80 + [[0, 1]] * 15 + [[2]] * 5)
    train, val = split_stratified(dataset, (0.8, 0.2), seed, alone(dataset))
    assert sorted(train + val) == list(range(100))
    assert [share(dataset, val, c) for c in range(3)] == [19, 3, 1]
    assert len(val) == 20


def test_a_split_at_random_would_not_share_out_as_evenly() -> None:
    dataset = labelled([[0]] * 80 + [[0, 1]] * 15 + [[2]] * 5)
    shares = {share(dataset, tuple(np.random.default_rng(seed).permutation(100)[:20].tolist()), 2) for seed in range(9)}
    assert shares != {1}


def test_three_parts_follow_their_fractions() -> None:
    dataset = labelled([[0]] * 100 + [[1]] * 50)
    parts = split_stratified(dataset, (8, 1, 1), 0, alone(dataset))  # divided by their sum
    assert [len(part) for part in parts] == [120, 15, 15]
    assert [share(dataset, part, 1) for part in parts] == [40, 5, 5]


def test_copies_stay_together_and_the_seed_decides() -> None:
    dataset = labelled([[i % 2] for i in range(40)])
    groups = [[2 * i, 2 * i + 1] for i in range(20)]
    first, again, other = (split_stratified(dataset, (0.75, 0.25), seed, groups) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    for part in first:
        assert {i ^ 1 for i in part} == set(part)


def test_no_part_is_empty() -> None:
    dataset = labelled([[0], [0], [], []])
    for seed in range(8):
        assert all(split_stratified(dataset, (0.98, 0.01, 0.01), seed, alone(dataset)))


def test_what_cannot_be_split() -> None:
    dataset = labelled([[0], [0]])
    with pytest.raises(DataError, match="cannot be split into 3"):
        split_stratified(dataset, (1, 1, 1), 0, alone(dataset))
    for fractions in ((), (1.0, 0.0), (0.5, -0.5), (float("nan"), 1.0)):
        with pytest.raises(DataError, match="must be above 0"):
            split_stratified(dataset, fractions, 0, alone(dataset))


@pytest.mark.parametrize("format", ["coco", "lvis", "voc", "yolo", "odvg", "openimages", "labelme", "parquet"])
def test_every_format_is_written_in_parts(format: str, tmp_path: Path) -> None:
    source = write_dataset(read_dataset(SCENES), tmp_path / "whole", format)
    arguments = ["data", "split", "--data", str(source), "--fractions", "0.5", "0.25", "0.25"]
    assert run([*arguments, "--output", str(tmp_path / "parts")]) == 0
    whole = read_dataset(source)
    places = {"yolo": "parts/data.yaml#{}", "parquet": "parts#{}"}
    parts = [read_dataset(str(tmp_path / places.get(format, "parts/{}").format(p))) for p in ("train", "val", "test")]
    assert sum(len(part) for part in parts) == len(whole)
    assert all(len(part) for part in parts)
    assert sum(len(part[i].instances) for part in parts for i in range(len(part))) == sum(
        len(whole[i].instances) for i in range(len(whole))
    )
    if format == "coco":
        assert all(part.vocabulary == whole.vocabulary for part in parts)
        assert all(path.is_symlink() for path in (tmp_path / "parts" / "val" / "images").iterdir())


def test_raccoons_copies_stay_together(shared_data: Path, tmp_path: Path) -> None:
    arguments = [
        "data",
        "split",
        "--data",
        str(shared_data / "raccoon_voc"),
        "--fractions",
        "0.8",
        "0.2",
        "--seed",
        "3",
    ]
    for name in ("one", "two"):
        run([*arguments, "--output", str(tmp_path / name)])
    stems = [
        {file.stem for file in (tmp_path / name / part / "Annotations").iterdir()}
        for name in ("one", "two")
        for part in ("train", "val")
    ]
    assert stems[:2] == stems[2:]
    for pair in ({"raccoon-11", "raccoon-116"}, {"raccoon-83", "raccoon-120"}, {"raccoon-50", "raccoon-52"}):
        assert pair <= stems[0] or pair <= stems[1]
    assert not stems[0] & stems[1]
    assert len(stems[1]) == 40


def test_a_split_is_reproduced_by_its_seed_whole_folders_alike(tmp_path: Path) -> None:
    run(["data", "split", "--data", SCENES, "--output", str(tmp_path / "a")])
    run(["data", "split", "--data", SCENES, "--output", str(tmp_path / "b")])
    for part in ("train", "val"):
        texts = [(tmp_path / name / part / "labels.json").read_text() for name in ("a", "b")]
        assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "x"], "--data is required, as in --data labels.json"),
        (["--data", SCENES], "--output is required, as in --output parts/"),
        (
            ["--data", SCENES, "--output", "x", "--val", "0.5"],
            "--val was removed; give both shares",
        ),
        (["--data", SCENES, "--output", "x", "--fractions", "0.5"], "two or three numbers"),
        (["--data", SCENES, "--output", "."], "exists and is not empty"),
        (["--data", "scenes:split=demo_train,count=1", "--output", "x"], "cannot be split"),
    ],
)
def test_refusals_are_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "something").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["data", "split", *arguments])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("deixis:")]
    assert stopped.value.code == 2
    assert len(errors) == 1
    assert said in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_voc_lists_are_read(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "voc"
    (folder / "Annotations").mkdir(parents=True)
    for number in (1, 2, 3):
        shutil.copy(shared_data / "raccoon_voc" / "annotations" / f"raccoon-{number}.xml", folder / "Annotations")
        (folder / "JPEGImages").mkdir(exist_ok=True)
        shutil.copy(shared_data / "raccoon_voc" / "images" / f"raccoon-{number}.jpg", folder / "JPEGImages")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("raccoon-2\n")
    (lists / "train.txt").write_text("raccoon-1  1\nraccoon-3 -1\n")
    (lists / "wrong.txt").write_text("raccoon-9\n")
    (lists / "empty.txt").write_text("\n")
    assert [read_dataset(f"{folder}#val")[0].source] == ["raccoon-2.xml"]
    train = read_dataset(folder, split="train")
    assert [train[i].source for i in range(len(train))] == ["raccoon-1.xml", "raccoon-3.xml"]
    assert len(read_dataset(folder)) == 3
    for split, said in (
        ("test", "ImageSets/Main has empty, train, val, wrong"),
        ("wrong", "raccoon-9"),
        ("empty", "no"),
    ):
        with pytest.raises(DataError, match=said):
            read_dataset(folder, split=split)


def test_class_names_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("car [red]", "[/b]")
    samples = []
    for number in range(4):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (30, 30, 3), np.uint8)).save(
            tmp_path / f"{number}.png"
        )
        found = Instances.build([[1, 1, 9, 9], [2, 2, 20, 20]], [0, 1])
        samples.append(Sample(tmp_path / f"{number}.png", (30, 30), found, Vocabulary(names), number))
    source = write_dataset(SampleList(tuple(samples), Vocabulary(names)), tmp_path / "in", "coco")
    run(["data", "split", "--data", str(source), "--output", str(tmp_path / "out"), "--fractions", "1", "1"])
    said = capsys.readouterr().out
    assert all(name in said for name in names)
    assert "\\" not in said
