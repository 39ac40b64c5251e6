"""Folders of shards: pictures as they were, found by an index, every damage named."""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from fuzz.detection import small_set
from PIL import Image

from deixis.batch_records import Prompt
from deixis.cli.main import main
from deixis.data.batching.epochs import epoch_batches
from deixis.data.batching.loading import load_batches
from deixis.data.detect.collate import SampleDataset
from deixis.data.detect.transforms import train_transform
from deixis.data.formats import read_dataset
from deixis.data.formats.shards import shard_index, shard_sizes, verify_shards
from deixis.data.formats.shards.index import IMAGE, ShardRatios
from deixis.data.formats.shards.write import Container, write_shards
from deixis.data.sets.embedded import changed, picture_bytes
from deixis.data.sets.mixing import Joined, Mixture
from deixis.errors import DataError
from deixis.records import Dataset, Instances, Sample, SampleList, Vocabulary

RECOGNISED = {"shards": {"shards.json": "{}", "data/train-00000-of-00001.parquet": "PAR1"}}
NAMES = Vocabulary(("cat", "café"), (3, 17))
CONTAINERS = ("parquet", "webdataset")


def example(folder: Path) -> None:
    folder.rmdir()
    write_shards(small_set(Random(1)), folder, "webdataset")


def make(folder: Path, count: int = 7) -> SampleList:
    """JPEGs of one name in several folders, among them two alike and one PNG; images with 0 to 3 objects."""
    samples = []
    for number in range(count):
        path = folder / str(number) / ("a.png" if number == 4 else "a.jpg")
        path.parent.mkdir(parents=True)
        Image.effect_noise((40, 10), 20 * min(number, 5)).save(path)
        boxes = [[1.25, 0, 9 + i, 9.5] for i in range(number % 4)]
        instances = Instances.build(boxes, [i % 2 for i in range(len(boxes))], [i == 2 for i in range(len(boxes))])
        absent = frozenset({1}) if number == 1 else None
        samples.append(Sample(path, (10, 40), instances, NAMES, image_id=10**10 + number, absent_class_ids=absent))
    return SampleList(tuple(samples), NAMES)


def written(tmp_path: Path, container: Container = "webdataset", **more: Any) -> tuple[SampleList, Path]:
    pytest.importorskip("pyarrow", reason="parquet is an extra; pip install 'deixis[parquet]'")
    plain = make(tmp_path / "images")
    write_shards(plain, tmp_path / "shards", container, **{"max_shard_mb": 0.0009, **more})
    return plain, tmp_path / "shards"


@pytest.mark.parametrize("container", CONTAINERS)
def test_pictures_and_annotations_are_what_they_were(tmp_path: Path, container: Container) -> None:
    plain, folder = written(tmp_path, container)
    assert len(sorted((folder / "data").iterdir())) > 2
    shutil.move(folder, tmp_path / "moved")
    dataset: Dataset = pickle.loads(pickle.dumps(read_dataset(tmp_path / "moved")))  # noqa: S301  our own
    assert dataset.vocabulary == NAMES
    index = shard_index(dataset)
    assert index is not None
    assert not isinstance(index.__getstate__().get("_tables"), dict), "a map would be copied into every worker"
    for position in (6, *range(7)):  # in any order
        own, read = plain[position], dataset[position]
        assert picture_bytes(dataset, position) == own.image.read_bytes()  # type: ignore[union-attr]
        np.testing.assert_array_equal(read.instances.boxes_xyxy_px, own.instances.boxes_xyxy_px)
        np.testing.assert_array_equal(read.instances.areas_px, own.instances.areas_px)
        assert read.instances.class_ids.tolist() == own.instances.class_ids.tolist()
        assert read.instances.is_crowd.tolist() == own.instances.is_crowd.tolist()
        assert (read.image_id, read.absent_class_ids) == (own.image_id, own.absent_class_ids)
    assert verify_shards(tmp_path / "moved") == len(shard_sizes(dataset)) + 3  # type: ignore[arg-type]


def test_parquet_shards_are_parquet_without_the_index_too(tmp_path: Path) -> None:
    plain, folder = written(tmp_path, "parquet")
    dataset = read_dataset(folder / "data")
    assert [len(dataset[i].instances) for i in range(7)] == [len(one.instances) for one in plain.samples]


def test_tars_are_pairs_by_key(tmp_path: Path) -> None:
    plain, folder = written(tmp_path)
    found = {}
    for file in sorted((folder / "data").iterdir()):
        with tarfile.open(file) as tar:
            found |= {one.name: tar.extractfile(one).read() for one in tar.getmembers()}  # type: ignore[union-attr]
    assert sorted(found) == sorted(
        name for i in range(7) for name in (f"{i:09d}.{'png' if i == 4 else 'jpg'}", f"{i:09d}.json")
    )
    assert found["000000004.png"] == plain[4].image.read_bytes()  # type: ignore[union-attr]
    assert json.loads(found["000000003.json"])["category_names"] == ["cat", "café", "cat"]


def test_the_second_write_is_refused_and_a_failed_one_leaves_nothing(tmp_path: Path) -> None:
    plain, folder = written(tmp_path)
    with pytest.raises(DataError, match=r"shards: exists and is not empty"):
        write_shards(plain, folder)
    plain[6].image.unlink()  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"6.a\.jpg: image file not found"):
        write_shards(plain, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "shards"]


def test_workers_read_what_one_process_reads(tmp_path: Path) -> None:
    _, folder = written(tmp_path)
    dataset = read_dataset(folder)
    shown = SampleDataset(dataset, train_transform([8, 10], 40), prompt, seed=3)
    batches = epoch_batches(7, 2, 1, 3, shard_sizes=shard_sizes(dataset), aspect_ratios=ShardRatios(dataset.records))  # type: ignore[attr-defined]
    found = [list(load_batches(shown, batches, list, workers)) for workers in (0, 2)]
    for mine, theirs in zip(*found, strict=True):
        for (a, _), (b, _) in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a.image, b.image)


def prompt(sample: Sample, generator: np.random.Generator) -> Prompt:
    del sample, generator
    return Prompt("cat.", ("cat",), ((0, 3),), (1,), np.ones((1, 1)))


def shard_of(folder: Path, number: int = 1) -> Path:
    return sorted((folder / "data").iterdir())[number]


def test_a_damaged_shard_is_one_line_with_its_name(tmp_path: Path) -> None:
    _, folder = written(tmp_path)
    shard = shard_of(folder)
    content = bytearray(shard.read_bytes())
    position = content.find(b"\xff\xd8") + 100
    content[position] ^= 1
    shard.write_bytes(content)
    dataset = read_dataset(folder)
    first = int(shard_sizes(dataset)[0])  # type: ignore[index]
    dataset[first - 1]
    with pytest.raises(DataError, match=rf"{shard.name}: this shard is damaged \(image {first + 1} is not"):
        dataset[first]
    with pytest.raises(DataError, match=rf"{shard.name}: this file is damaged"):
        verify_shards(folder)


def test_a_missing_or_shortened_file_is_found_when_the_folder_is_opened(tmp_path: Path) -> None:
    _, folder = written(tmp_path)
    for file in (shard_of(folder), folder / "index" / "objects.bin"):
        content = file.read_bytes()
        file.write_bytes(content[:-45])
        with pytest.raises(DataError, match=rf"{file.name}: has {len(content) - 45} bytes, shards.json lists"):
            read_dataset(folder)
        file.unlink()
        with pytest.raises(DataError, match=rf"{file.name}: this shard is missing"):
            read_dataset(folder)
        file.write_bytes(content)


def edit(folder: Path, **values: Any) -> None:
    content = json.loads((folder / "shards.json").read_text())
    (folder / "shards.json").write_text(json.dumps(content | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"deixis_shards": 2}, "deixis_shards is 2, expected 1"),
        ({"shards": []}, "lists no shard"),
        ({"shards": [{"file": "../a", "bytes": 0, "sha256": "", "images": 7}]}, "lists '../a', which is no file of"),
        ({"shards": [{"file": "/a", "bytes": 0, "sha256": "", "images": 7}]}, "lists '/a', which is no file of"),
        ({"names": 3}, "cannot be read as shards"),
        ({"index": []}, "cannot be read as shards"),
    ],
)
def test_a_hostile_list(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    _, folder = written(tmp_path)
    edit(folder, **values)
    with pytest.raises(DataError, match=message):
        read_dataset(folder)


@pytest.mark.parametrize("field", ["shard", "height", "offset", "bytes", "object", "detail"])
@pytest.mark.parametrize("value", [-5, 2**31 - 1])
def test_a_hostile_row(tmp_path: Path, field: str, value: int) -> None:
    _, folder = written(tmp_path)
    file = folder / "index" / "images.bin"
    rows = np.fromfile(file, IMAGE)
    rows[field][3] = value
    file.write_bytes(rows.tobytes())
    with pytest.raises(DataError, match=r"^(?!.*Traceback).*(train-|shards)"):
        read_dataset(folder)[3]


def test_what_lies_in_shards(tmp_path: Path) -> None:
    _, folder = written(tmp_path)
    one = read_dataset(folder)
    sizes = shard_sizes(one)
    assert sizes is not None
    assert sizes.sum() == 7
    renamed = changed(one, NAMES, lambda sample: sample)
    np.testing.assert_array_equal(shard_sizes(renamed), sizes)  # type: ignore[arg-type]
    np.testing.assert_array_equal(shard_sizes(Joined([one, renamed])), [*sizes, *sizes])  # type: ignore[arg-type]
    assert shard_sizes(Joined([one], Mixture.of([7]))) is None
    assert shard_sizes(Joined([one, make(tmp_path / "more")])) is None


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["data", *words])
    return int(ended.value.code or 0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "shards")
    words = ["shard", "scenes:split=demo_train,count=4,seed=1", "--output", output]
    assert run(*words, "--to", "webdataset") == 0
    assert "4 images in 1 shard," in capsys.readouterr().out
    assert run("shard", output, "--verify") == 0
    assert run(*words) == 2
    assert run("shard", str(tmp_path), "--verify") == 2
    assert run("shard", output) == 2
    errors = capsys.readouterr().err
    assert "no shards.json in it" in errors
    assert "--output is required" in errors
