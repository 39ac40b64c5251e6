"""What CONTRIBUTING.md says of a new format: a record in the table is all that reading and writing ask for."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deixis.atomic_files import new_folder
from deixis.cli.main import main
from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.placing import ImageMode, placed
from deixis.data.formats.record import Format, Holds
from deixis.data.formats.table import FORMATS, WRITTEN
from deixis.data.formats.writing import not_kept, write_dataset, write_parts
from deixis.data.reading import reads
from deixis.data.scenes.from_text import read_scenes
from deixis.errors import DataError
from deixis.records import Dataset, Instances, Sample, SampleList, Vocabulary


def find_toy(path: Path) -> list[Path]:
    return sorted(path.glob("*.toy")) if path.is_dir() else [path] if path.suffix == ".toy" else []


@reads("toy annotations")
def read_toy(path: str | Path, images: Path | None = None) -> SampleList:
    """A JSON object in a file `.toy`: the names, and rows `[file, height, width, boxes, class ids]`."""
    (file,) = find_toy(Path(path))
    content = json.loads(file.read_text())
    vocabulary = Vocabulary(tuple(content["names"]))
    home = images or file.parent / "images"
    return SampleList(
        tuple(
            Sample(home / name, (height, width), Instances.build(boxes, ids), vocabulary, number, f"row {number}")
            for number, (name, height, width, boxes, ids) in enumerate(content["rows"], start=1)
        ),
        vocabulary,
    )


def write_toy(dataset: Dataset, folder: Path, images: ImageMode, masks: bool) -> Path:
    with new_folder(folder) as draft:
        rows = [
            [name, *sample.size_hw, sample.instances.boxes_xyxy_px.tolist(), sample.instances.class_ids.tolist()]
            for sample, name in placed(dataset, draft / "images", images)
        ]
        (draft / "set.toy").write_text(json.dumps({"names": dataset.vocabulary.names, "rows": rows}))
    return folder / "set.toy"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Format:
    format = Format("toy", find_toy, read_toy, write=write_toy, holds=Holds(crowds=True))
    monkeypatch.setitem(FORMATS, "toy", format)
    monkeypatch.setitem(WRITTEN, "toy", format)
    return format


@pytest.mark.usefixtures("toy")
def test_a_record_in_the_table_is_recognised_read_and_written(tmp_path: Path) -> None:
    dataset = read_scenes("scenes:split=demo_train,count=3,seed=1")
    written = write_dataset(dataset, tmp_path / "out", "toy")
    assert written == tmp_path / "out" / "set.toy"
    for place in (written, tmp_path / "out"):
        assert format_of(place) == "toy"
        read = read_dataset(place)
        assert read.vocabulary == dataset.vocabulary
        for index in range(3):
            before, after = dataset[index].instances, read[index].instances
            np.testing.assert_array_equal(after.boxes_xyxy_px, before.boxes_xyxy_px)
            np.testing.assert_array_equal(after.class_ids, before.class_ids)
    lines = not_kept(dataset, "toy")
    assert [line.split(":")[0].split(" of ")[0] for line in lines] == ["image ids", "masks", "areas"]
    assert write_parts({"train": dataset}, tmp_path / "parts", "toy") == {"train": f"{tmp_path}/parts/train/set.toy"}
    with pytest.raises(DataError, match=r"toy annotations have no splits to choose from; give the file of 'val'"):
        read_dataset(f"{written}#val")
    (tmp_path / "out" / "set.toy").write_text("{}")
    with pytest.raises(DataError, match=r"set.toy: cannot be read as toy annotations"):
        read_dataset(written)


@pytest.mark.usefixtures("toy")
def test_commands_and_errors_know_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = "scenes:split=demo_train,count=2,seed=1"
    with pytest.raises(SystemExit) as caught:
        main(["data", "convert", "--data", scenes, "--to", "toy", "--output", str(tmp_path / "out")])
    assert caught.value.code == 0
    assert "set.toy" in capsys.readouterr().out
    write_dataset(read_scenes(scenes), tmp_path / "yolo", "yolo")
    for file in (tmp_path / "yolo").iterdir():
        if file.name != "images":
            file.rename(tmp_path / "out" / file.name)
    with pytest.raises(DataError, match=r"may be of several formats: yolo \(data.yaml\); toy \(set.toy\)"):
        read_dataset(tmp_path / "out")
    with pytest.raises(DataError, match=r"no annotations of a known format \(voc, .*, coco, toy\)"):
        read_dataset(tmp_path / "yolo" / "images")


def test_formats_are_named_in_their_own_rooms_only() -> None:
    src = Path(__file__).parents[4] / "src" / "deixis"
    rooms = [src / "data" / "formats" / name for name in FORMATS]
    assert all(room.is_dir() for room in rooms)
    found = {}
    for file in sorted(set(src.rglob("*.py")) - {file for room in rooms for file in room.rglob("*.py")}):
        text = file.read_text(encoding="utf-8")
        if count := sum(text.count(f'"{name}"') for name in FORMATS):
            found[file.relative_to(src).as_posix()] = count
    assert found == {
        "cli/wrong_flags.py": 1,  # a flag that other tools have
        "data/opened.py": 1,  # the default of save()
        "options/data_slice.py": 1,  # the default of --to
        "options/data_shard.py": 2,  # what the shards are files of
        "recipes/data/merge.py": 1,  # where the first data set's format is not written
        "options/detect_predict.py": 1,  # the default of --output
        "options/data_convert.py": 1,  # the default of --to
        "options/review/export.py": 1,  # the default of --to
        "recipes/data/split.py": 1,  # the same, for generated scenes
        "review/corrected.py": 1,  # a key of Label Studio's tasks
        "training/checkpoint/state.py": 1,  # a folder of a checkpoint
    }


def test_help_reads_no_data_libraries() -> None:
    code = (
        "import contextlib, io, sys\nfrom deixis.cli.main import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['data', 'convert', '--help'])\n"
        "print(sorted({'torch', 'pyarrow', 'cv2', 'deixis.data.formats'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_docs_say_what_the_records_hold() -> None:
    root = Path(__file__).parents[4]
    spec = importlib.util.spec_from_file_location("format_table", root / "scripts" / "format_table.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (root / "docs" / "formats.md").read_text(encoding="utf-8")
    assert script.with_table(text) == text, "the formats' records have changed: run scripts/format_table"
    first = text.partition(script.START)[0]
    rows = {name.strip("`,") for line in first.splitlines() if line[:3] == "| `" for name in line.split("|")[1].split()}
    assert set(FORMATS) <= rows, "and every format has a row of the first table"
    assert script.row(Format("x", find_toy, read_toy, holds=Holds(masks=True, crowds=True, boxes_beside_masks=False)))[
        1:6
    ] == ("✓", "", "✓, of a mask its bounds", "", "")
