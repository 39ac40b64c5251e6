"""`deixis data convert`: what it says, what it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from deixis.cli.main import main, run
from deixis.data.formats import read_dataset
from deixis.options.data_convert import DataConvertOptions
from deixis.options.yaml_files import options_from, plain_values

SCENES = "scenes:split=demo_train,count=2,seed=1"


def test_what_is_lost_is_said_and_the_rest_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "convert", "--data", SCENES, "--to", "voc", "--output", str(tmp_path / "voc")]) == 0
    said = capsys.readouterr().out.splitlines()
    scenes = read_dataset(SCENES)
    objects = sum(len(scenes[i].instances) for i in range(2))
    assert said[0] == f"read 2 images, {objects} objects, {len(scenes.vocabulary)} class names from {SCENES}"
    assert any(line.startswith(f"lost in voc: masks of {objects} objects") for line in said)
    assert said[-1] == f"wrote {tmp_path / 'voc'}; read it with --data {tmp_path / 'voc'}"
    assert sum(len(sample.instances) for sample in read_dataset(tmp_path / "voc").samples) == objects


def test_a_chain_of_formats_ends_where_it_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = SCENES
    for step, format in enumerate(("lvis", "coco", "labelme", "yolo", "coco")):
        target = tmp_path / f"{step}_{format}"
        run(["data", "convert", "--data", source, "--to", format, "--output", str(target), "--image-files", "link"])
        source = str(target)
    before, after = read_dataset(SCENES), read_dataset(source)
    assert before.vocabulary.names == after.vocabulary.names
    for index in range(2):
        assert before[index].instances.masks_rle is not None
        assert [str(rle["counts"]) for rle in before[index].instances.masks_rle or ()] == [
            str(rle["counts"]) for rle in after[index].instances.masks_rle or ()
        ]
    assert "lost in coco: nothing" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["data", "convert", "--data", SCENES, "--to", "odvg", "--output", str(tmp_path / "out"), "--dry-run"])
    run(["data", "convert", "--data", SCENES, "--to", "odvg", "--dry-run"])
    assert "lost in odvg: masks" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x"], "--data is required, as in --data labels.json"),
        (["--data", SCENES], "--output is required, as in --output converted/"),
        (["--data", "absent.json", "--output", "x"], "absent.json: no such file or folder"),
        (["--data", SCENES, "--output", "."], "exists and is not empty"),
        (["--data", SCENES, "--output", "x", "--to", "nonsense"], "--to: unknown format 'nonsense'; choose one of voc"),
        (["--data", SCENES, "--output", "x", "--format", "nonsense"], "unknown format 'nonsense'"),
    ],
)
def test_refusals_are_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "something").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["data", "convert", *arguments])
    assert caught.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_options_survive_yaml() -> None:
    options = DataConvertOptions(data="x", output=Path("y"), to="yolo", split="val")
    assert options_from(DataConvertOptions, plain_values(options), "test") == options
