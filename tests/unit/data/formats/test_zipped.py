"""Zipped exports: every format is read from an archive; hostile archives are refused; what is unpacked is removed."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from random import Random

import pytest
from format_examples import write_example
from fuzz.detection import small_set

from deixis.data.formats import format_of, read_dataset, zipped
from deixis.data.formats.table import FORMATS
from deixis.data.formats.writing import write_dataset
from deixis.data.pixels.images import load
from deixis.errors import DataError


def pack(folder: Path, archive: Path, below: str = "") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, f"{below}{path.relative_to(folder)}")
        file.writestr("__MACOSX/._x.json", b"\0\5\26\7")
    return archive


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("below", ["", "export/"])
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_every_format_is_read_from_an_archive(tmp_path: Path, format: str, below: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    write_example(format, tmp_path / "set")
    archive = pack(tmp_path / "set", tmp_path / "export.zip", below)
    plain, read = read_dataset(tmp_path / "set"), read_dataset(archive)
    assert format_of(archive) == format
    assert read.vocabulary == plain.vocabulary
    assert len(read) == len(plain)
    for index in range(len(plain)):
        before, after = load(plain[index]), load(read[index])
        assert after.instances.boxes_xyxy_px.tolist() == before.instances.boxes_xyxy_px.tolist()
        assert (after.image == before.image).all()


def test_a_split_of_an_archive_and_pictures_elsewhere(tmp_path: Path) -> None:
    write_dataset(small_set(Random(1)), tmp_path / "set", "yolo")
    archive = pack(tmp_path / "set", tmp_path / "export.zip")
    assert len(read_dataset(f"{archive}#train")) == 3
    write_dataset(small_set(Random(1)), tmp_path / "coco", "coco")
    (tmp_path / "coco" / "images").rename(tmp_path / "pictures")
    labels = pack(tmp_path / "coco", tmp_path / "labels.zip")
    assert len(read_dataset(labels, tmp_path / "pictures")) == 3


def test_links_are_not_made_to_what_is_unpacked(tmp_path: Path) -> None:
    write_dataset(small_set(Random(1)), tmp_path / "set", "coco")
    dataset = read_dataset(pack(tmp_path / "set", tmp_path / "export.zip"))
    write_dataset(dataset, tmp_path / "out", "yolo", images="link")
    assert not any(file.is_symlink() for file in (tmp_path / "out").rglob("*"))


def test_it_is_unpacked_once_and_again_when_it_changes(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "one")
    first = zipped.unpacked(archive)
    assert zipped.unpacked(archive) == first
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "three")
    assert (zipped.unpacked(archive) / "a.txt").read_text() == "three"
    assert zipped.is_unpacked(first / "a.txt")
    assert not zipped.is_unpacked(tmp_path / "a.txt")


def test_it_is_removed_when_the_process_ends_but_not_by_its_workers(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.txt", "one")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom deixis.data.formats.zipped import unpacked\n"
        "folder = unpacked(Path(sys.argv[1]))\n"
        "if os.fork() == 0: sys.exit()\n"
        "os.wait()\nassert (folder / 'a.txt').is_file()\nprint(folder)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.zip")], capture_output=True, text=True, check=True
    )
    assert not Path(done.stdout.strip()).parent.exists()


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


HOSTILE: dict[str, tuple[list[tuple[str | zipfile.ZipInfo, str]], str]] = {
    "up": ([("../a.txt", "x")], r"entry outside of the archive, '\.\./a\.txt'"),
    "deep up": ([("a/../../b.txt", "x")], "outside of the archive"),
    "absolute": ([("/etc/a.txt", "x")], "outside of the archive"),
    "windows": ([("..\\a.txt", "x")], "outside of the archive"),
    "drive": ([("C:/a.txt", "x")], "outside of the archive"),
    "link": ([(link("a"), "/etc/passwd")], "a link or a special file, 'a'"),
    "twice": ([("a.txt", "x"), ("b/../a.txt", "y")], "outside of the archive"),
    "file as folder": ([("a", "x"), ("a/b", "y")], "cannot be unpacked"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_entries_are_refused(tmp_path: Path, kind: str) -> None:
    entries, said = HOSTILE[kind]
    archive = tmp_path / "in" / "a.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in entries:
            file.writestr(name, content)
    with pytest.raises(DataError, match=said) as caught:
        read_dataset(archive)
    assert str(caught.value).startswith(f"{archive}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_bombs_are_refused_by_what_they_unpack_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipped, "_FREE_RATIO_BYTES", 1 << 20)
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.json", bytes(8 << 20))
    with pytest.raises(DataError, match=r"unpacks to more than \d+ bytes"):
        read_dataset(archive)
    monkeypatch.setattr(zipped, "MAX_FILES", 1)
    with zipfile.ZipFile(archive, "w") as file:
        for name in "ab":
            file.writestr(name, "x")
    with pytest.raises(DataError, match="has 2 files, at most 1"):
        read_dataset(archive)


def test_damaged_archives_are_one_line(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.json", "[1, 2, 3]" * 100)
    content = whole.getvalue()
    (tmp_path / "a.zip").write_bytes(content[:-10])
    with pytest.raises(DataError, match=r"a\.zip: cannot be unpacked"):
        read_dataset(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(content[:45] + b"\xff\xff\xff" + content[48:])
    with pytest.raises(DataError, match=r"a\.zip: cannot be unpacked"):
        read_dataset(tmp_path / "a.zip")
